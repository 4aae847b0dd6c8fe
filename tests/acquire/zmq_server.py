"""A stand-in for the ZMQ server of Micro-Manager Studio: a real core with real adapters behind what pycromanager's client says.

``python -m tests.acquire.zmq_server CONFIG [--port N]`` prints the port, then takes orders from stdin, a word a line:

live / stop: switch the live view on or off. acquire / acquired: begin or end an acquisition. mute: no call is answered any more. late S: each answer comes S seconds late. error TEXT: each call of
the core fails, until `well`. oom: frames come as a Java OutOfMemoryError. badpoint: points are refused, as by some servers. set LABEL PROPERTY VALUE,
move X Y: as somebody at the microscope would. ask METHOD: prints what the core says.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import uuid
from typing import Any, ClassVar

import numpy as np
import zmq
from pymmcore_plus import CMMCorePlus

from tests.acquire.conftest import adapters

STRING, DOUBLE, INT, BOOL = "java.lang.String", "double", "int", "boolean"
VERSION = "5.1.0"

API: dict[str, list[list[str]]] = {
    "startSequenceAcquisition": [[INT, DOUBLE, BOOL]],
    "stopSequenceAcquisition": [[]],
    "isSequenceRunning": [[], [STRING]],
    "getRemainingImageCount": [[]],
    "popNextTaggedImage": [[]],
    "getLastTaggedImage": [[]],
    "isBufferOverflowed": [[]],
    "getCircularBufferMemoryFootprint": [[]],
    "getImageHeight": [[]],
    "getImageWidth": [[]],
    "getBytesPerPixel": [[]],
    "getNumberOfComponents": [[]],
    "getXYStagePosition": [[]],
    "getXPosition": [[]],
    "getYPosition": [[]],
    "setXYPosition": [[DOUBLE, DOUBLE]],
    "getPosition": [[]],
    "setPosition": [[DOUBLE]],
    "waitForDevice": [[STRING]],
    "deviceBusy": [[STRING]],
    "stop": [[STRING]],
    "getDevicePropertyNames": [[STRING]],
    "isPropertyReadOnly": [[STRING, STRING]],
    "setProperty": [[STRING, STRING, STRING]],
    "getExposure": [[]],
    "setExposure": [[DOUBLE]],
    "getCameraDevice": [[]],
    "getXYStageDevice": [[]],
    "getFocusDevice": [[]],
    "getPixelSizeUm": [[]],
    "getPixelSizeAffine": [[]],
    "getCurrentPixelSizeConfig": [[]],
    "getVersionInfo": [[]],
    "getAPIVersionInfo": [[]],
}


class Vector:
    """mmcorej's StrVector and DoubleVector: not lists for the client."""

    java_class, fields = "mmcorej.Vector", ()
    api: ClassVar[dict[str, Any]] = {"size": [[]], "get": [[INT]]}

    def __init__(self, items: Any) -> None:
        self._items = list(items)

    def size(self) -> int:
        return len(self._items)

    def get(self, i: int) -> Any:
        return self._items[i]


class Point:
    java_class, fields = "java.awt.geom.Point2D$Double", ("x", "y")
    api: ClassVar[dict[str, Any]] = {}

    def __init__(self, x: float, y: float) -> None:
        self.x, self.y = x, y


class Tagged:
    java_class, fields = "mmcorej.TaggedImage", ("pix", "tags")
    api: ClassVar[dict[str, Any]] = {}

    def __init__(self, pix: Any, tags: dict[str, Any]) -> None:
        self.pix, self.tags = pix, tags


class OutOfMemory:
    java_class, fields = "java.lang.OutOfMemoryError", ()
    api: ClassVar[dict[str, Any]] = {}


class Core:
    """Java's names and values over a real core."""

    java_class, fields, api = "mmcorej.CMMCore", (), API

    def __init__(self, config: str) -> None:
        self.mmc = CMMCorePlus()
        self.mmc.setDeviceAdapterSearchPaths([str(adapters())])
        self.mmc.loadSystemConfiguration(config)
        self.oom = self.badpoint = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mmc, name)

    def popNextTaggedImage(self) -> Any:
        return self._tagged(*self.mmc.popNextImageAndMD(fix=False))

    def getLastTaggedImage(self) -> Any:
        return self._tagged(*self.mmc.getLastImageAndMD(fix=False))

    def getXYStagePosition(self) -> Point:
        if self.badpoint:
            raise RuntimeError("Internal class accidentally exposed")
        return Point(*self.mmc.getXYPosition())

    def getDevicePropertyNames(self, label: str) -> Vector:
        return Vector(self.mmc.getDevicePropertyNames(label))

    def getPixelSizeAffine(self) -> Vector:
        return Vector(self.mmc.getPixelSizeAffine())

    def _tagged(self, image: Any, tags: Any) -> Any:
        if self.oom:
            return OutOfMemory()
        channel = {4: np.uint8, 8: np.uint16}.get(image.dtype.itemsize)
        flat = np.ascontiguousarray(image).reshape(-1)
        # Java's tags: numbers as numbers or as texts
        content = {str(key): str(tags[key]) for key in tags}
        return Tagged(
            flat if channel is None else flat.view(channel),
            content | {"Width": image.shape[1], "Height": str(image.shape[0])},
        )


class Studio:
    """The program itself, as far as it tells of its acquisition."""

    java_class, fields = "org.micromanager.Studio", ()
    api: ClassVar[dict[str, Any]] = {"acquisitions": [[]]}

    def __init__(self) -> None:
        self.manager = Acquisitions()

    def acquisitions(self) -> Acquisitions:
        return self.manager


class Acquisitions:
    java_class, fields = "org.micromanager.acquisition.AcquisitionManager", ()
    api: ClassVar[dict[str, Any]] = {"isAcquisitionRunning": [[]]}

    def __init__(self) -> None:
        self.is_running = False

    def isAcquisitionRunning(self) -> bool:
        return self.is_running


class Server:
    """Answers at one port, and at a further one for each object that wants its own."""

    def __init__(self, core: Core) -> None:
        self.core, self.studio = core, Studio()
        self.late_s = 0.0
        self.error = ""
        self.mute = False
        self._objects: dict[str, Any] = {}

    def serve(self, port: int | None) -> int:
        socket: Any = zmq.Context.instance().socket(zmq.REP)
        if port is None:
            port = socket.bind_to_random_port("tcp://127.0.0.1")
        else:
            socket.bind(f"tcp://127.0.0.1:{port}")
        threading.Thread(target=self._answer, args=(socket, port), daemon=True).start()
        return port

    def _answer(self, socket: Any, port: int) -> None:
        while True:
            message = json.loads(socket.recv_multipart()[0])
            parts: list[bytes] = []
            while self.mute and message["command"] != "connect":
                time.sleep(0.05)
            time.sleep(self.late_s)
            try:
                reply = self._reply(message, port, parts)
            except Exception as err:  # noqa: BLE001 - whatever a device raises is an answer
                text = f"java.lang.Exception: {err}\n\tat mmcorej.MMCoreJJNI.CMMCore_{message.get('name')}(Native Method)\n"
                reply = {"type": "exception", "value": text}
            socket.send_multipart([json.dumps(reply).encode("iso-8859-1"), *parts])

    def _reply(self, message: dict[str, Any], port: int, parts: list[bytes]) -> dict[str, Any]:
        command = message["command"]
        if command == "connect":
            return {"type": "none", "version": VERSION}
        if command == "get-constructors":
            return {"type": "none", "api": [{"name": message["classpath"], "arguments": []}]}
        if command == "constructor":
            wanted = self.studio if message["classpath"] == Studio.java_class else self.core
            return self._packed(wanted, self.serve(None) if message.get("new-port") else port, parts)
        if command == "destructor":
            self._objects.pop(message["hash-code"], None)
            return {"type": "none"}
        target = self._objects[message["hash-code"]]
        if command == "get-field":
            return self._packed(getattr(target, message["name"]), port, parts)
        if self.error and target is self.core:
            raise RuntimeError(self.error)
        return self._packed(getattr(target, message["name"])(*message["arguments"]), port, parts)

    def _packed(self, value: Any, port: int, parts: list[bytes]) -> dict[str, Any]:
        if value is None:
            return {"type": "null"}
        if isinstance(value, str):
            return {"type": "string", "value": value}
        if isinstance(value, bool | int | float):
            return {"type": "primitive", "value": value}
        if isinstance(value, dict):
            return {"type": "object", "class": "JSONObject", "value": json.dumps(value)}
        if isinstance(value, np.ndarray):
            key = uuid.uuid4().int & 0xFFFFFFFF
            parts += [key.to_bytes(4, sys.byteorder), value.tobytes()]
            kind = {"uint8": "byte-array", "uint16": "short-array", "float32": "float-array"}[
                value.dtype.name
            ]
            return {"type": kind, "value": f"@{key:x}"}
        code = uuid.uuid4().hex
        self._objects[code] = value
        api = [
            {"name": name, "arguments": arguments, "return-type": "java.lang.Object"}
            for name, overloads in value.api.items()
            for arguments in overloads
        ]
        return {
            "type": "unserialized-object", "class": value.java_class, "hash-code": code, "port": port,
            "interfaces": [value.java_class], "fields": list(value.fields), "api": api,
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    server = Server(Core(options.config))
    mmc = server.core.mmc
    print(server.serve(options.port), flush=True)
    for line in sys.stdin:
        order, _, text = line.strip().partition(" ")
        if order == "live":
            mmc.startContinuousSequenceAcquisition()
        elif order == "stop":
            mmc.stopSequenceAcquisition()
        elif order in ("acquire", "acquired"):
            server.studio.manager.is_running = order == "acquire"
        elif order == "mute":
            server.mute = True
        elif order == "late":
            server.late_s = float(text)
        elif order == "error":
            server.error = text
        elif order == "well":
            server.error, server.late_s, server.core.oom = "", 0.0, False
        elif order in ("oom", "badpoint"):
            setattr(server.core, order, True)
        elif order == "move":
            mmc.setXYPosition(*map(float, text.split()))
        elif order == "set":
            mmc.setProperty(*text.split(" ", 2))
        print(getattr(mmc, text)() if order == "ask" else "done", flush=True)


if __name__ == "__main__":
    main()
