"""What the page is made of: the recognizer's parts that it reads, and changes none of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cloud_recognizer.audit import AuditLog
from cloud_recognizer.hub.contract import Hub
from cloud_recognizer.layer_requests import LayerRequests
from cloud_recognizer.live_page.figures import Figures
from cloud_recognizer.reconstruction import Reconstruction


@dataclass(frozen=True)
class Sources:
    """Results, the log of who looks, counts, and pictures where they are allowed.

    connected: id of each device that is connected here → seconds for which it has sent no face.
    """

    hub: Hub
    audit: AuditLog
    figures: Figures
    reconstruction: Reconstruction
    layers: LayerRequests
    connected: Callable[[], Mapping[str, float]]
