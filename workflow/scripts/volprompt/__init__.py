"""Zero-shot evaluation of promptable segmentation models on 3D medical volumes."""

__version__ = "0.2.0"

# What each stage's results depend on in this library. A change of behaviour that changes results raises the stage's
# number; the workflow carries it in `params`, so that exactly the jobs of that stage and those behind it run again.
METHOD_VERSION = {
    "convert": 2,
    "prompts": 2,
    "segment": 2,
    "score": 4,
    "aggregate": 6,
    "report": 10,
}
