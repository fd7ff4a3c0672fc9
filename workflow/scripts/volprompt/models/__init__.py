"""One adapter per family of models behind one interface, the engine, tracking and devices."""
