"""What files are called that hold patches, and what lies beside them."""

IMAGES = {"tif", "tiff", "png", "jpg", "jpeg"}
LITTER = {"Thumbs.db", "desktop.ini"}
LABELS = "train_labels.csv"
PACK = "pack.json"
