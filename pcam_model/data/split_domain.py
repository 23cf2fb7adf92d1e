"""Leave one domain out: a centre or scanner is the test split, and nothing of it is trained on."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError

MAX_LISTED = 20


def held_out_domain(rows: pd.DataFrame, domain: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (N,) of the domain's patches, and of those of the other domains that share nothing with it.

    In neither are patches of no known domain, and those of another domain with a slide or the pixels of this one.

    Raises:
        SplitError: no domain is known, or not this one, or it is the only one.
    """
    known = sorted(rows["domain"].dropna().unique()) if "domain" in rows else []
    if not known:
        raise SplitError(
            "split.kind is leave_one_domain_out, but no patch has a domain; give a column domain (centre, scanner) in "
            "the label table or in the slide map source.slides, or choose another split.kind"
        )
    listed = ", ".join(known[:MAX_LISTED]) + (f" and {len(known) - MAX_LISTED:,} more" * (len(known) > MAX_LISTED))
    if domain not in known:
        raise SplitError(f"split.domain is {domain!r}, but the patches are of {listed}; name one of these")
    if len(known) == 1:
        raise SplitError(
            f"every patch with a domain is of {domain}, so none remains to train on; give patches of another domain, "
            "or choose another split.kind"
        )
    held_out = (rows["domain"] == domain).to_numpy(bool)
    shared = rows["pixels"].isin(rows["pixels"][held_out]) | rows["slide"].isin(rows["slide"][held_out].dropna())
    return held_out, rows["domain"].notna().to_numpy(bool) & ~held_out & ~shared.to_numpy(bool)
