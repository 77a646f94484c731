from .store.zoo import Zoo as Zoo

__version__: str
