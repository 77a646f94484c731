from .edm import EDM as EDM
from .edm import ConditionalEDM as ConditionalEDM
