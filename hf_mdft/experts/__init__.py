"""The models of one task: what each predicts, how far each is trusted without labels, and all of them as one."""

from .average import WAYS, average_model, greedy_average
from .ensemble import combined, joint_features
from .learned import learned_average
from .observation import Source, observe, observe_in_stages
from .of_task import TaskExperts
from .related import RelatedExpert, related_experts
from .weights import weigh


__all__ = [
    "WAYS",
    "RelatedExpert",
    "Source",
    "TaskExperts",
    "average_model",
    "combined",
    "greedy_average",
    "joint_features",
    "learned_average",
    "observe",
    "observe_in_stages",
    "related_experts",
    "weigh",
]
