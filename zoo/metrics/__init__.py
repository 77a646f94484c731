"""Numbers that say how good a model is, each with its error, its unit, and whether it is exact, a bound or an estimate.

    from zoo.metrics import evaluate_checkpoint, evaluate_quality, nll, reproduce

The number itself is `zoo.measurement.Measurement`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
