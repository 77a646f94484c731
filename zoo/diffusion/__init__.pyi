from .consistency import ConsistencyModel as ConsistencyModel
from .ddpm import DDPM as DDPM
from .edm import EDM as EDM
from .edm import ConditionalEDM as ConditionalEDM
from .flow_matching import FlowMatching as FlowMatching
