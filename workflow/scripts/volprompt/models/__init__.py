"""One adapter per family of models behind one interface, the engine, tracking and devices."""

import os

# Said before any package of models is imported: transformers and timm fetch nothing, and tell nobody.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
