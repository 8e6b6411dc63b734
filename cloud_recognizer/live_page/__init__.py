"""A page that shows in a browser what is recognised, where the operator asks for one.

Hub.subscription ─▶ Feed (server-sent events) ─▶ page.js
Metrics, Accuracy ─▶ Figures ──┘
LayerRequests ─▶ Reconstruction ─▶ a picture of a device's next chunk, where policy allows it

`site` alone knows HTTP, and needs the extra `page`.
"""
