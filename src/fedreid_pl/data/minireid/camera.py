"""Simulated cameras: their place, their errors of colour and light, and the image of one detection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fedreid_pl.data.minireid import scene
from fedreid_pl.data.minireid.domains import Domain
from fedreid_pl.data.minireid.pedestrian import BACK, FRONT, SIDE, Pose, draw_pedestrian
from fedreid_pl.data.minireid.person import Person, draw_person, shade
from fedreid_pl.data.minireid.schedule import TRACK, Shot
from fedreid_pl.data.minireid.streams import Stream, noise_bytes

CANVAS = (80, 144)
"""Size of the canvas in pixels: the 64 x 128 pixels of a perfect detection with a margin of 8."""

Box = tuple[float, float, float, float]

CHANNEL = np.array([0, 256, 512], dtype=np.uint16)
"""Start of each channel in a response table."""

EXPOSURES = 16
"""Number of exposure steps; with few steps, a camera needs only a few lookup tables."""


@dataclass(frozen=True)
class Camera:
    """Hardware and place of one camera.

    Args:
        place: kind of scene, a key of `scene.PLACES`.
        gains: factors of red, green and blue.
        gamma: exponent of the response; a value above 1 darkens the middle tones.
        lift: darkest output of the sensor, 0..255.
        saturation: 64 = unchanged, 0 = grey.
        sharpness: resolution relative to the pixels, 1 = every pixel.
        noise: amplitude of the noise, in 256ths of the full range of a sum of three bytes.
        pitch: downward tilt, see `Pose`.
        views: probabilities of a person seen from the front, the back and the side.
        light: +1 or -1, side of the light.
    """

    place: str
    gains: tuple[float, float, float]
    gamma: float
    lift: float
    saturation: int
    sharpness: float
    noise: int
    pitch: float
    views: tuple[tuple[str, float], ...]
    light: int


class Studio:
    """Renders the images of one domain and caches its cameras, backgrounds and persons.

    Args:
        domain: the domain.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._cameras = [build_camera(domain, number) for number in range(1, domain.cameras + 1)]
        self._backdrops: dict[int, Image.Image] = {}
        self._responses: dict[tuple[int, int], np.ndarray] = {}
        self._people: dict[tuple[str, int], Person] = {}

    def take(self, shot: Shot) -> Image.Image:
        """Returns the image of one shot in RGB, with `domain.size` pixels, before JPEG compression.

        The image depends only on the domain's name, size and look and on the shot's kind, person, camera and index.
        """
        key = (self.domain.key, shot.kind, shot.person, shot.camera)
        walk, draw = Stream(*key, "walk", shot.index // TRACK), Stream(*key, "image", shot.index)
        camera = self._cameras[shot.camera - 1]
        canvas = self._backdrop(shot.camera, walk, draw)
        pen = ImageDraw.Draw(canvas)
        if shot.kind != "background":
            self._stage(shot, camera, pen, walk, draw)
        box = _detection(self.domain.look.looseness, shot.kind, draw)
        step = min(EXPOSURES - 1, walk.index(EXPOSURES - 4) + draw.index(5))
        table = self._responses.get((shot.camera, step))
        if table is None:
            table = self._responses[shot.camera, step] = response(camera, step)
        noise = noise_bytes(self.domain.size[0] * self.domain.size[1] * 3, *key, "noise", shot.index)
        return _develop(camera, canvas, box, table, noise, self.domain.size)

    def person(self, kind: str, number: int) -> Person:
        """Returns the person with this number within `kind` (see `Shot`)."""
        person = self._people.get((kind, number))
        if person is None:
            person = draw_person(self.domain.look, self.domain.key, kind, number)
            self._people[kind, number] = person
        return person

    def _backdrop(self, number: int, walk: Stream, draw: Stream) -> Image.Image:
        picture = self._backdrops.get(number)
        if picture is None:
            place = self._cameras[number - 1].place
            picture = self._backdrops[number] = scene.background(place, self.domain.key, number)
        x = walk.index(scene.WIDTH - CANVAS[0] - 40) + draw.index(40)
        y = draw.index(scene.HEIGHT - CANVAS[1])
        return picture.crop((x, y, x + CANVAS[0], y + CANVAS[1]))

    def _stage(self, shot: Shot, camera: Camera, pen: ImageDraw.ImageDraw, walk: Stream, draw: Stream) -> None:
        view = walk.weighted(camera.views)
        pose = Pose(view, 1 if walk.chance(0.5) else -1, draw.between(-1, 1), camera.pitch, camera.light)
        if draw.chance(0.15):
            self._passer_by(camera, pen, draw, near=False)
        centre, feet = 40 + draw.between(-2, 2), 132 + draw.between(-2, 2)
        shadow = round(40 - 8 * camera.light), round(feet)
        pen.ellipse((shadow[0] - 20, shadow[1] - 5, shadow[0] + 20, shadow[1] + 3), fill=(70, 70, 72))
        person = self.person(shot.kind, shot.person)
        draw_pedestrian(pen, person, pose, centre, feet, 118 * walk.between(0.96, 1.02))
        if draw.chance(self.domain.look.occlusion):
            obstacle = draw.weighted((("person", 4), ("pole", 3), ("furniture", 3)))
            if obstacle == "person":
                self._passer_by(camera, pen, draw, near=True)
            else:
                _obstruct(pen, draw, obstacle)

    def _passer_by(self, camera: Camera, pen: ImageDraw.ImageDraw, draw: Stream, near: bool) -> None:
        person = self.person("passer-by", draw.index(200))
        side = 1 if draw.chance(0.5) else -1
        pose = Pose(draw.pick((FRONT, BACK, SIDE)), side, draw.between(-1, 1), camera.pitch, camera.light)
        if near:
            draw_pedestrian(pen, person, pose, 40 + side * draw.between(24, 34), 144, 122)
        else:
            draw_pedestrian(pen, person, pose, 40 + side * draw.between(16, 34), 100, 72)


def build_camera(domain: Domain, number: int) -> Camera:
    """Returns the camera with this number (from 1) of a domain."""
    draw, cast = Stream(domain.key, "camera", number), domain.look.cast
    warm, tint = draw.between(-0.34, 0.34) * cast, draw.between(-0.16, 0.16) * cast
    level = 1 + draw.between(-0.34, 0.26) * cast
    # neighbouring cameras see persons from different sides
    main = (FRONT, BACK, SIDE)[(number + Stream(domain.key, "views").index(3)) % 3]
    return Camera(
        place=domain.look.scenes[(number - 1) % len(domain.look.scenes)],
        gains=(level * (1 + warm), level * (1 + tint), level * (1 - warm)),
        gamma=1 + draw.between(-0.38, 0.6) * cast,
        lift=draw.between(0, 38) * cast,
        saturation=round(64 * (1 + draw.between(-0.55, 0.1) * cast)),
        sharpness=draw.between(*domain.look.sharpness),
        noise=round(draw.between(3, 18)),
        pitch=draw.between(0.0, 0.26),
        views=tuple((view, 0.6 if view == main else 0.2) for view in (FRONT, BACK, SIDE)),
        light=1 if draw.chance(0.5) else -1,
    )


def response(camera: Camera, step: int) -> np.ndarray:
    """Returns the camera's response to red, green and blue at one exposure step, `[768]` int16 in 0..255."""
    exposure = 0.8 + 0.4 * step / (EXPOSURES - 1)
    table = []
    for gain in camera.gains:
        for value in range(256):
            level = min(1.0, value / 255 * gain * exposure) ** camera.gamma
            table.append(round(camera.lift + (250 - camera.lift) * level))
    return np.array(table, dtype=np.int16)


def _obstruct(pen: ImageDraw.ImageDraw, draw: Stream, obstacle: str) -> None:
    if obstacle == "pole":
        x, tone = 14 + draw.index(50), shade((120, 122, 124), draw.between(0.4, 1.4))
        pen.rectangle((x, 0, x + 5, 144), fill=tone)
        pen.rectangle((x + 3, 0, x + 5, 144), fill=shade(tone, 0.7))
    else:
        x, y = draw.index(50) - 10, 96 + draw.index(24)
        tone = shade(draw.pick(((110, 84, 60), (90, 110, 74), (110, 114, 120))), draw.between(0.6, 1.3))
        pen.rectangle((x, y, x + 50, 144), fill=tone)
        pen.rectangle((x, y, x + 50, y + 4), fill=shade(tone, 1.25))


def _detection(loose: float, kind: str, draw: Stream) -> Box:
    """Returns the detector's box on the canvas in multiples of 1/8 pixel, which every machine represents exactly."""
    zoom = draw.between(1 - 0.025 * loose, 1 + 0.02 * loose)
    x, y = (draw.between(-1.2, 1.2) * loose for _ in range(2))
    if kind == "junk":
        zoom, x, y = draw.between(0.45, 0.8), draw.between(-22, 22), draw.between(-30, 30)
    wide, high = min(64 * zoom, 80.0), min(128 * zoom, 144.0)
    left = min(max(40 + x - wide / 2, 0.0), 80 - wide)
    top = min(max(72 + y - high / 2, 0.0), 144 - high)
    left, top, wide, high = (int(value * 8) / 8 for value in (left, top, wide, high))
    return left, top, left + wide, top + high


def _develop(
    camera: Camera, canvas: Image.Image, box: Box, table: np.ndarray, noise: np.ndarray, size: tuple[int, int]
) -> Image.Image:
    """Returns the final image: the box resized with the camera's sharpness, colour response and noise."""
    width, height = size
    small = (max(8, round(width * camera.sharpness)), max(16, round(height * camera.sharpness)))
    picture = canvas.resize(small, Image.Resampling.BILINEAR, box=box)
    if small != size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    pixels = table[np.asarray(picture) + CHANNEL]
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    grey = ((red * 5 + green * 9 + blue * 2) >> 4)[..., None]
    pixels -= grey
    pixels *= camera.saturation
    pixels >>= 6
    bell = noise.reshape(3, height, width).astype(np.int16)  # a sum of uniform numbers is almost Gaussian
    pixels += grey + (((bell[0] + bell[1] + bell[2] - 382) * camera.noise) >> 8)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
