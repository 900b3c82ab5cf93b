"""An RTSP server that is no library of ours: GStreamer's, on 127.0.0.1. Run by the system's Python, which has its bindings.

`/usr/bin/python3 rtspserver.py PORT WIDTH HEIGHT`: rtsp://127.0.0.1:PORT/cam1 shows a ball that moves, 25 times a second, as JPEG.
"""

from __future__ import annotations

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after their versions

PICTURES = "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width={},height={},framerate=25/1"

if __name__ == "__main__":
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( {PICTURES.format(*sys.argv[2:])} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )")
    factory.set_shared(True)
    server.get_mount_points().add_factory("/cam1", factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print("ready", flush=True)
    GLib.MainLoop().run()
