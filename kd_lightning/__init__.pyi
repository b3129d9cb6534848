from kd_lightning.cli import main as main
from kd_lightning.data import Affine as Affine
from kd_lightning.data import Augment as Augment
from kd_lightning.data import Batch as Batch
from kd_lightning.data import Elastic as Elastic
from kd_lightning.data import InMemoryDataModule as InMemoryDataModule
from kd_lightning.data import Jitter as Jitter
from kd_lightning.data import MNISTDataModule as MNISTDataModule
from kd_lightning.data import TensorLoader as TensorLoader
from kd_lightning.data import TransferData as TransferData
from kd_lightning.export import load_exported as load_exported
from kd_lightning.methods import KL as KL
from kd_lightning.methods import FeatureLoss as FeatureLoss
from kd_lightning.methods import Hints as Hints
from kd_lightning.methods import ReverseKL as ReverseKL
from kd_lightning.methods import SoftLoss as SoftLoss
from kd_lightning.methods import SoftTargets as SoftTargets
from kd_lightning.methods import hard_loss as hard_loss
from kd_lightning.methods import soft_cross_entropy as soft_cross_entropy
from kd_lightning.methods import soft_loss as soft_loss
from kd_lightning.methods import soft_target_log_probs as soft_target_log_probs
from kd_lightning.methods import soft_targets as soft_targets
from kd_lightning.modules import ClassifierModule as ClassifierModule
from kd_lightning.modules import DistillModule as DistillModule
from kd_lightning.modules import TeacherModule as TeacherModule
from kd_lightning.modules import WarmupCosine as WarmupCosine
from kd_lightning.nets import MLP as MLP
from kd_lightning.nets import SmallConvNet as SmallConvNet
from kd_lightning.teachers import FrozenEnsemble as FrozenEnsemble
from kd_lightning.teachers import PretrainedNet as PretrainedNet
from kd_lightning.teachers import StoreOptions as StoreOptions
from kd_lightning.teachers import load_teachers as load_teachers

__version__: str
__all__: list[str]
