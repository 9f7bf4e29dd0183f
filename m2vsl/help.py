"""What the command line says of itself: the names that it knows, and examples. Torch is not needed to read it."""

from __future__ import annotations


class UsageError(Exception):
    """The command line asks for something that is not there."""


TASKS = ("single", "duet", "multi")  # the names are repeated here because help must not wait for torch; a test compares
PRESETS = ("smoke", "quick", "small", "gpu", "paper")
METHODS = (
    *("centre", "random", "everything", "object_area", "oracle", "bound", "attention10k", "ots", "dmc"),
    *("coarse_to_fine", "lvs", "ez_vsl", "ez_vsl_ogl", "slavc", "mix_and_localize", "dsol", "avgn"),
    *("avs_ws", "cam", "cam_near", "c2am", "m2vsl", "m2vsl_plus"),
)
GROUPS = ("modules", "scales", "transformer", "temperature", "batch", "updates", "steps")  # of `m2vsl.ablations`
NAMES = f"""
tasks     {", ".join(TASKS)}
methods   {", ".join(METHODS[:9])},
          {", ".join(METHODS[9:17])},
          {", ".join(METHODS[17:])}
presets   {", ".join(PRESETS)}
"""
OVERRIDES = """
key=value lays a value over the preset; keys are dotted places in the experiment:
  train.steps=100  train.lr=3e-4  train.batch_size=32     TrainConfig
  model.temperature=0.07  model.scales=[3,4]              the method's: M2VSLConfig, EZVSLConfig
  model.encoder.freeze=false  model.encoder.dim=128       EncoderConfig
  data.size=112  data.fold=3                              SyntheticConfig, FolderConfig
  audio=ezvsl276  audio.crop=random                       a named AudioConfig, then its fields
An unknown key is answered with the valid ones.
"""

HOURS = "save and end after so many hours, exit status 75: the same command goes on (default 0, no end)"
TRACE = "keep a trace of N steps in trace.json beside the checkpoints, for Perfetto (default 0)"
PRESET = f"{', '.join(PRESETS)} (default: M2VSL_PRESET, else quick)"
EXAMPLES = """
a first look, minutes on two cores:
  m2vsl train m2vsl/duet --preset quick
  m2vsl evaluate m2vsl/duet --preset quick
your own photographs and recordings:
  m2vsl data check my_clips
  m2vsl run quick --data-root my_clips
Each command has its own --help.
"""
CHECK = """
  m2vsl data check my_clips
  m2vsl data check DIR --benchmark vggsound
  m2vsl data check DIR --benchmark avsbench --lists ms3_labels.csv

Exit status 1 if there is a problem. Notes (stereo, other sample rates) are not problems.
"""
LIKE = """
  m2vsl data make-avsbench-like DIR
  m2vsl data make-avsbench-like DIR --size 224 --s4 1000 100 100 --ms3 300 60 60

Frames, masks, sounds and lists as AVSBench has them, of drawn things and synthesised sounds. What
else is in DIR is never overwritten.
"""
ABLATE = """
  m2vsl ablate --jobs 2
  m2vsl ablate --groups modules batch --tasks single multi --seeds 0 1 2 3 4
  m2vsl ablate --preset paper --dataset avsbench --data-root DIR

Runs what is not recorded and prints a table for each group.
"""
TRAIN = """
  m2vsl train m2vsl/duet
  m2vsl train ez_vsl/duet --preset small --seed 1
  m2vsl train m2vsl/duet --data-root my_clips --skip-bad train.steps=100
  m2vsl train lvs/single --preset gpu --dataset vggsound --data-root DIR
  torchrun --nproc-per-node 2 -m m2vsl.cli train m2vsl/single --preset gpu

Ctrl-C and SIGTERM save; the same command goes on where it stopped. Several processes share each
batch.
"""
EVALUATE = """
  m2vsl evaluate m2vsl/duet
  m2vsl evaluate oracle/single --preset small

Takes the arguments that the training had.
"""
RELEASE = """
  m2vsl release m2vsl/duet --preset quick

Of a run that is trained and evaluated: data/checkpoints/<name>/ with weights in half precision, the
configuration, hashes and a card.
"""
TRUTHS = """
--truth KIND ROOT:
  vggss        ROOT: vggss.json, or the folder that holds it
  duet         a folder with vggss.json and vggsound_duet_test.csv
  instruments  a folder with vgginstruments_test.csv and anno/
  avsbench     the folder of S4 or MS3 that holds gt_masks/test/
  folder       a folder with masks/<class>/<name>.png
"""
MAPS = """
heat maps of any program:
  m2vsl evaluate --maps MAPS --truth vggss ROOT --protocol all
  m2vsl evaluate --maps seed0 seed1 seed2 --against theirs --truth duet ROOT

MAPS: a folder of <clip>.npy, .npz or .png (one map, or several along the first axis), or
<clip>/<class>.npy; or one .npz with these names as keys. Any size; larger is hotter. presence.csv
(id,class,presence) beside class maps says which are heard. Classes as in the lists (elk_bugling).
--roles auto: class maps answer for their class, nameless ones for the source they fit best, by the
truth; sources: map s is of source s of the list; turns: map s is what was found when source s alone
sounded. A map whose range is below a millionth of 1 counts as constant: save scores, not a softmax.
--protocol: all, or avsbench, ezvsl, lvs, slavc, avgn, tvsl, noprior, dsol, framewise, sourcewise,
or the full name of one.
"""
BOUNDS = """
  m2vsl bounds --truth vggss.json
  m2vsl bounds --truth duet ROOT
"""
TABLE = """
  m2vsl table duet --preset small
  m2vsl table single --methods centre ez_vsl m2vsl --seeds 0
"""
RUN = """
  m2vsl run quick --seeds 0
  m2vsl run small --data-root my_clips --methods centre ez_vsl m2vsl
  m2vsl run small --fresh
"""
