from .lenet import LeNet as LeNet
