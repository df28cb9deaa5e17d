"""Tables 2 to 4 of the paper (Wang et al., CVPR 2022), number by number as printed, for comparison with ours.

Numbers of other methods are those the paper quotes or measured itself; they were not checked against the original
publications. Two means of Table 2 are not the average of their row (Popa et al.: 205.0, Zanfir et al. 2018: 153.2);
they are given here as printed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

UNKNOWN = math.nan
"""A number that the paper does not give."""


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        method: authors, and year or name where several are known. kind: top-down, bottom-up or single-stage.
        numbers: one for each column of the table; NaN where the paper gives none.
        note: the paper's remark on the row's numbers.
    """

    method: str
    kind: str
    numbers: tuple[float, ...]
    note: str = ""


@dataclass(frozen=True)
class Published:
    """One table of the paper.

    Attributes:
        id: of its place on a page. title: what is compared. source: where it was printed.
        columns: (name, format) of each column. conditions: under which all numbers were measured.
        rows: the methods.
        data_source: source of prepared data whose numbers can be compared with these; data: the same in words. Empty
            where the table compares no accuracy.
        last_is_mean: the last column is the mean of the others.
    """

    id: str
    title: str
    source: str
    columns: tuple[tuple[str, str], ...]
    conditions: str
    rows: Sequence[Row]
    data_source: str = ""
    data: str = ""
    last_is_mean: bool = False


TABLE_2 = Published(
    id="table-2",
    title="CMU Panoptic, MPJPE in mm",
    source="Wang et al., CVPR 2022, Table 2",
    columns=tuple((name, ".1f") for name in ("haggling", "mafia", "ultimatum", "pizza", "mean")),
    conditions="9,600 frames of HD cameras 16 and 30, errors after root alignment, mean over the four activities",
    rows=(
        Row("Popa et al.", "top-down", (217.9, 187.3, 193.6, 221.3, 203.4)),
        Row("Zanfir et al. (CVPR 2018)", "top-down", (140.0, 165.9, 150.7, 156.0, 153.4)),
        Row("Wang et al. (HMOR)", "top-down", (50.9, 50.5, 50.7, 68.2, 55.1), "mean recalculated by the paper"),
        Row("Zanfir et al. (NIPS 2018)", "bottom-up", (72.4, 78.8, 66.8, 94.3, 78.1), "mean recalculated by the paper"),
        Row("Fabbri et al. (LoCO)", "bottom-up", (45.0, 95.0, 58.0, 79.0, 69.0), "published as whole numbers"),
        Row("Zhen et al. (SMAP)", "bottom-up", (63.1, 60.3, 56.6, 67.1, 61.8)),
        Row("DAS, the paper", "single-stage", (53.3, 51.2, 49.1, 61.5, 53.8)),
    ),
    data_source="panoptic",
    data="CMU Panoptic's 9,600 frames of four activities",
    last_is_mean=True,
)

TABLE_3 = Published(
    id="table-3",
    title="MuPoTS-3D, PCK at 150 mm in percent",
    source="Wang et al., CVPR 2022, Table 3",
    columns=(("PCK rel", ".1f"), ("PCK abs", ".1f")),
    conditions="20 sequences, all ground truths unless noted; the rows come from different evaluators",
    rows=(
        Row("Rogez et al. (LCR-Net++)", "top-down", (70.6, UNKNOWN)),
        Row("Moon et al.", "top-down", (81.8, 31.5)),
        Row("Wang et al. (HMOR)", "top-down", (82.0, 43.8)),
        Row("Lin et al. (HDNet)", "top-down", (83.7, 35.2), "matched ground truths only"),
        Row("Mehta et al. (3DV 2018)", "bottom-up", (65.0, UNKNOWN)),
        Row("Mehta et al. (XNect)", "bottom-up", (70.4, UNKNOWN)),
        Row("Zhen et al. (SMAP)", "bottom-up", (73.5, 35.4)),
        Row("DAS, the paper", "single-stage", (82.7, 39.2)),
    ),
    data_source="mupots",
    data="the 20 sequences of MuPoTS-3D",
)

TABLE_4 = Published(
    id="table-4",
    title="Runtime of one image",
    source="Wang et al., CVPR 2022, Table 4",
    columns=(("runtime ms", ".0f"), ("Panoptic MPJPE mm", ".1f"), ("MuPoTS-3D PCK rel", ".1f")),
    conditions="one V100 GPU, batch size 1; the paper does not state what was timed",
    rows=(
        Row("Moon et al.", "top-down", (107, UNKNOWN, 81.8), "speed measured by the paper"),
        Row("Lin et al. (HDNet)", "top-down", (118, UNKNOWN, 83.7), "speed measured by the paper"),
        Row("Fabbri et al. (LoCO)", "bottom-up", (125, 69.0, UNKNOWN)),
        Row("Zhen et al. (SMAP)", "bottom-up", (108, 61.8, 73.5), "speed measured by the paper"),
        Row("DAS, the paper, 2-stage MSPN", "single-stage", (75, 54.6, 81.0)),
    ),
)
