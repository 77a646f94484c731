from .lenet import LeNet as LeNet
from .resnet import ResNet as ResNet
