"""Pull a published model and predict patches from Python, cell by cell as in a notebook.

python -m examples.pull_and_predict MODEL IMAGE [IMAGE ...]
"""

# %% A model: a channel such as champion, a run, a folder, or an address such as s3://bucket/prefix
import sys

from PIL import Image

import pcam_model

model, *files = sys.argv[1:]
predictor = pcam_model.load(model)
print(f"Run {predictor.model.run}: tumour is called from a probability of {predictor.model.threshold:.3f}")

# %% Patches: 96x96 RGB, as PIL images, numpy arrays or torch tensors
patches = [Image.open(file) for file in files]
probabilities, labels = predictor(patches)

# %% Calibrated probabilities, and labels at the model's operating point
for file, probability, label in zip(files, probabilities, labels, strict=True):
    print(f"{file}: {probability:.3f} {'tumour' if label else 'no tumour'}")
