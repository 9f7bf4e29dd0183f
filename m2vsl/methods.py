"""What a name in a table stands for: a literal dict, one line per method."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from m2vsl.baselines.attention10k import Attention10k, Attention10kConfig
from m2vsl.baselines.avgn import AVGN, AVGNConfig
from m2vsl.baselines.avs_ws import AVS, AVSConfig
from m2vsl.baselines.c2am import C2AM, C2AMConfig
from m2vsl.baselines.cam import CAM, CAMConfig
from m2vsl.baselines.coarse_to_fine import CoarseToFine, CoarseToFineConfig
from m2vsl.baselines.controls import Centre, ControlConfig, Everything, ObjectArea, Oracle, Random
from m2vsl.baselines.dmc import DMC, DMCConfig
from m2vsl.baselines.dsol import DSOL, DSOLConfig
from m2vsl.baselines.ez_vsl import EZVSL, EZVSLConfig
from m2vsl.baselines.lvs import LVS, LVSConfig
from m2vsl.baselines.mix_and_localize import MixAndLocalize, MixAndLocalizeConfig
from m2vsl.baselines.ots import OTS, OTSConfig
from m2vsl.baselines.slavc import SLAVC, SLAVCConfig
from m2vsl.model import M2VSL, M2VSLConfig


class Method(NamedTuple):
    """What a name in a table stands for."""

    build: Any  # (config, classes) -> Localizer
    config: Any  # its configuration under the ledger's defaults
    title: str  # as tables print it
    solos: bool = False  # learns from solos, whatever it is tested on; ledger 45
    data: Mapping[str, Any] = MappingProxyType({})  # fields of the data set that are part of the method
    steps: float = 1.0  # times the updates of a short preset
    lr: float = 1.0  # times the learning rate of a short preset


PLUS = M2VSLConfig(  # ours: each field a departure from the paper, one row of the ablation
    scales=(2, 3, 4),
    class_reduction="sum",
    heard_from="sound",
    same_class_negatives=False,
    peak="soft",
    sharpness=8.0,
    top_down=True,
    map_weight=1.0,
    loudness=False,
    remix=True,
    presence="both",
    spread=12,
    lengths=True,
    view=224,
)
SLOW: dict[str, Any] = {"steps": 3.0, "lr": 1 / 3}  # one negative, or a pair, to a sample: long plateaus
METHODS: dict[str, Method] = {
    "centre": Method(Centre, ControlConfig(), "Centre"),
    "random": Method(Random, ControlConfig(), "Random"),
    "everything": Method(Everything, ControlConfig(), "Everything"),
    "object_area": Method(ObjectArea, ControlConfig(), "Object area"),
    "oracle": Method(Oracle, ControlConfig(), "Oracle"),
    "bound": Method(Oracle, ControlConfig(), "bound of the protocol"),
    "attention10k": Method(Attention10k, Attention10kConfig(), "Attention10k", solos=True, **SLOW),
    "ots": Method(OTS, OTSConfig(), "OTS", solos=True, **SLOW),
    "dmc": Method(DMC, DMCConfig(), "DMC", solos=True, **SLOW),
    "coarse_to_fine": Method(CoarseToFine, CoarseToFineConfig(), "CoarsetoFine", solos=True, lr=1 / 3),
    "lvs": Method(LVS, LVSConfig(), "LVS", solos=True),
    "ez_vsl": Method(EZVSL, EZVSLConfig(), "EZ-VSL", solos=True),
    "ez_vsl_ogl": Method(EZVSL, EZVSLConfig(ogl=True), "EZ-VSL + OGL", solos=True),
    "slavc": Method(SLAVC, SLAVCConfig(momentum=0.9, dropout=0.5), "SLAVC", solos=True),
    "mix_and_localize": Method(MixAndLocalize, MixAndLocalizeConfig(), "Mix-and-Localize", solos=True, **SLOW),
    "dsol": Method(DSOL, DSOLConfig(), "DSOL", solos=True),
    "avgn": Method(AVGN, AVGNConfig(normalise_slots=True), "AVGN", solos=True, lr=1 / 3),
    "avs_ws": Method(AVS, AVSConfig(gain=0.1), "AVS (ws)", steps=0.5, lr=0.1),  # its decoder is slow, and easily thrown
    "cam": Method(CAM, CAMConfig(), "CAM"),
    "cam_near": Method(CAM, CAMConfig(zooms=(2.0,)), "CAM, enlarged"),  # a short preset's frames as M2VSL+ sees them
    "c2am": Method(C2AM, C2AMConfig(), "C\N{SUPERSCRIPT TWO}AM"),
    "m2vsl": Method(M2VSL, M2VSLConfig(), "M2VSL"),
    "m2vsl_plus": Method(M2VSL, PLUS, "M2VSL+ (ours)", data={"solo_share": 0.5}),
}
CONTROLS = ("centre", "random", "everything", "object_area", "oracle", "bound")
