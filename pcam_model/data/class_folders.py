"""Class folders: images in normal/ and tumor/, 0/ and 1/ or folders of other names, perhaps below train/ and valid/."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from pcam_model.core.errors import SourceError
from pcam_model.data.container import Container
from pcam_model.data.container_patches import ContainerPatches, make_table, no_labels_message
from pcam_model.data.file_names import class_of, is_image, split_of


class ClassFolderPatches(ContainerPatches):
    """The images of class folders; those of a test folder without classes are unlabelled."""

    def __init__(self, path: Path, container: Container, names: Sequence[str], classes: Sequence[str] = ()) -> None:
        """Find each image's class and split by its folders.

        Args:
            path: of the container, for messages.
            container: the archive or folder.
            names: of its files.
            classes: names of the folders of class 0 and 1; empty: their usual names.

        Raises:
            SourceError: an image is in no class's folder.
        """
        images = [name for name in names if is_image(name)]
        labels = [folder_label(name, classes) for name in images]
        origins = [split_of(name.rpartition("/")[0]) or "train" for name in images]
        if all(label is None for label in labels):
            raise SourceError(_missing_classes_message(path, names, classes))
        if not classes:
            refuse_two_classes(path, images)
        for name, label, origin in zip(images, labels, origins, strict=True):
            if label is None and origin != "test":
                raise SourceError(
                    f"{path}: {name} is in no folder of a class, where the others are; move it into one, move it to "
                    "test/ (unlabelled) or out of the source, or name the folders of both classes, 0 first, with "
                    "source.classes"
                )
        super().__init__(container, make_table(unique_ids(images), labels, origins, images))


def folder_label(name: str, classes: Sequence[str]) -> int | None:
    """The class that the deepest of a file's folders names; None where none does."""
    names = [each.lower() for each in classes]
    for folder in reversed(PurePosixPath(name).parts[:-1]):
        label = class_of(folder) if not names else names.index(folder.lower()) if folder.lower() in names else None
        if label is not None:
            return label
    return None


def refuse_two_classes(path: Path, images: Sequence[str]) -> None:
    """Raise SourceError for an image whose folders name both classes, as tumor/0/x.png; those of all images aside."""
    by_folder = {name.rpartition("/")[0]: name for name in images}
    shared = len(PurePosixPath(os.path.commonpath(list(by_folder))).parts)
    for folder, name in by_folder.items():
        if {class_of(part) for part in PurePosixPath(folder).parts[shared:]} >= {0, 1}:
            raise SourceError(
                f"{path}: the folders of {name} name both classes; name the two that are classes, 0 first, with "
                "source.classes=[NORMAL,TUMOUR]"
            )


def unique_ids(images: Sequence[str]) -> list[str]:
    """The files' names without folder and ending where each is another, else with their folders."""
    stems = [PurePosixPath(name).stem for name in images]
    return stems if len(set(stems)) == len(stems) else [name.rpartition(".")[0] for name in images]


def _missing_classes_message(path: Path, names: Sequence[str], classes: Sequence[str]) -> str:
    if not classes:
        return no_labels_message(path, names)
    folders = sorted({part for name in names if is_image(name) for part in PurePosixPath(name).parts[:-1]})
    return (
        f"{path}: no folder is called {' or '.join(classes)}, as source.classes says; its folders are "
        f"{', '.join(folders[:12]) or 'none'}; name the one of class 0 and the one of class 1"
    )
