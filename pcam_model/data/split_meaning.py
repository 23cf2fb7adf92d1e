"""What metrics on a split say, and what they do not, in a sentence."""

from pcam_model.data.leakage import LeakageReport, SplitKind
from pcam_model.data.stain_clusters import StainClusters

UNSEEN = "the metrics hold for slides that were not trained on: no slide and no identical patch is in two splits"
OPTIMISTIC = "optimistic: patches of one slide may be in two splits, so metrics on new slides will be lower"


def describe_split(
    kind: SplitKind, leakage: LeakageReport, clusters: StainClusters | None = None, no_clusters: str = ""
) -> str:
    """The sentence of a finished division.

    Args:
        kind: how the patches were divided.
        leakage: what the splits share.
        clusters: of a cluster split.
        no_clusters: why a random split is none by clusters, where that was tried.
    """
    if clusters is not None:
        return _describe_clusters(clusters)
    if kind == "random":
        return f"{OPTIMISTIC}; there was no split by clusters, since {no_clusters}" if no_clusters else OPTIMISTIC
    if kind == "official":
        return _describe_official(leakage)
    if kind == "leave_one_domain_out":
        return _describe_domain(leakage)
    return f"{UNSEEN}{_unmapped(leakage)}"


def _unmapped(leakage: LeakageReport) -> str:
    count = leakage.unmapped_slides
    return f"; optimistic where {count:,} patches of unknown slides are from one of these" if count else ""


def _describe_clusters(clusters: StainClusters) -> str:
    return (
        f"optimistic where a slide has patches in several clusters: slides are not known, and {clusters.count} "
        f"clusters of similar stain are in their place (silhouette {clusters.silhouette:.2f} of -1 to 1); no cluster, "
        f"no identical patch and none of {clusters.tissue_pieces:,} pieces of tissue, which "
        f"{clusters.patches_in_pieces:,} overlapping patches show, is in two splits"
    )


def _describe_domain(leakage: LeakageReport) -> str:
    domain = ", ".join(leakage.domains_held_out)
    if any(leakage.slides[name] for name in ("train", "valid")):
        valid = f"validation has slides of the other domains that were not trained on{_unmapped(leakage)}"
    else:
        valid = "validation is optimistic: patches of one slide may be in train and valid"
    text = (
        f"the metrics hold for a domain that was not trained on: all of test is of {domain}, nothing else is; {valid}"
    )
    if not leakage.left_out:
        return text
    count = len(leakage.left_out)
    return f"{text}; {count:,} patches that have no domain, or share a slide or pixels with this one, were left out"


def _describe_official(leakage: LeakageReport) -> str:
    if leakage.slides_in_two_splits:
        text = f"optimistic: {leakage.slides_in_two_splits:,} slides are in two splits of the source's own division"
    elif leakage.unmapped_slides:
        text = "the source's own division; its slides are not known here, no identical patch is in two splits"
    else:
        text = f"the source's own division; {UNSEEN}"
    if not leakage.left_out:
        return text
    return f"{text}; {len(leakage.left_out):,} patches that repeat one of a later split were left out"
