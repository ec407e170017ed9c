"""Picture files as Pillow writes and reads them: each file's bytes, and what `Image.open(file).convert('RGB')` makes of them."""

import io
import struct
import zlib

import numpy as np
import torch
from common import Fixture, main
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from vision_resize import noise


def smooth(height, width, channels=3):
    """A picture that compresses: waves of different lengths in each channel, with some noise on them."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 90 * np.sin(x / (5 + c) + c) * np.cos(y / (7 - c)) for c in range(channels)]
    grain = noise(9, height, width, channels).astype(int) % 16
    return np.clip(np.stack(planes, -1) + grain, 0, 255).astype(np.uint8)


def png_chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png_16(values, colour_type):
    """16 bits to a sample, which Pillow writes for grey alone."""
    height, width = values.shape[:2]
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in values)
    head = struct.pack('>IIBBBBB', width, height, 16, colour_type, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR', head) + png_chunk(b'IDAT', zlib.compress(rows)) + png_chunk(b'IEND', b'')


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def files():
    rgb = Image.fromarray(smooth(29, 38))
    rgba = Image.fromarray(smooth(17, 23, 4), 'RGBA')
    grey = Image.fromarray(smooth(19, 26, 1)[:, :, 0])
    turned = Image.Exif()
    turned[0x0112] = 6
    wide = np.arange(11 * 14 * 4, dtype=np.uint32).reshape(11, 14, 4) * 2654435761 % 65536
    yield 'png-rgb', saved(rgb, 'PNG')
    yield 'png-rgba', saved(rgba, 'PNG')
    yield 'png-grey', saved(grey, 'PNG')
    yield 'png-grey-alpha', saved(rgba.convert('LA'), 'PNG')
    yield 'png-palette', saved(rgb.quantize(17), 'PNG')
    yield 'png-palette-clear', saved(rgb.quantize(9), 'PNG', transparency=3)
    yield 'png-rgb-clear', saved(rgb, 'PNG', transparency=rgb.getpixel((0, 0)))
    yield 'png-grey-clear', saved(grey, 'PNG', transparency=grey.getpixel((0, 0)))
    yield 'png-bits', saved(grey.convert('1'), 'PNG')
    yield 'png-two-bits', saved(rgb.quantize(4), 'PNG', bits=2)
    yield 'png-turned', saved(rgb, 'PNG', exif=turned)
    yield 'png-gamma', png_with(saved(rgb, 'PNG'), b'gAMA', struct.pack('>I', 100000))
    yield 'png-one', saved(rgb.crop((3, 4, 4, 5)), 'PNG')
    yield 'png-16-rgb', png_16(wide[:, :, :3], 2)
    yield 'png-16-rgba', png_16(wide, 6)
    yield 'png-16-grey-alpha', png_16(wide[:, :, :2], 4)
    yield 'jpeg-444', saved(rgb, 'JPEG', quality=90, subsampling=0)
    yield 'jpeg-422', saved(rgb, 'JPEG', quality=80, subsampling=1)
    yield 'jpeg-420', saved(rgb, 'JPEG', quality=75, subsampling=2)
    yield 'jpeg-progressive', saved(rgb, 'JPEG', quality=85, progressive=True)
    yield 'jpeg-grey', saved(grey, 'JPEG', quality=85)
    yield 'jpeg-cmyk', saved(rgb.convert('CMYK'), 'JPEG', quality=95)
    yield 'jpeg-turned', saved(rgb, 'JPEG', quality=90, exif=turned)
    yield 'jpeg-rgb', saved(rgb, 'JPEG', quality=90, keep_rgb=True)
    yield 'webp', saved(rgb, 'WEBP', quality=80)
    yield 'webp-lossless', saved(rgb, 'WEBP', lossless=True)
    yield 'webp-alpha', saved(rgba, 'WEBP', lossless=True, exact=True)
    yield 'webp-animated', saved(rgb, 'WEBP', lossless=True, save_all=True, append_images=[rgb.rotate(90)])
    yield 'webp-turned', saved(rgb, 'WEBP', lossless=True, exif=turned)
    yield 'ppm', saved(rgb, 'PPM')
    yield 'pgm', saved(grey, 'PPM')
    yield 'ppm-text', b'P3 # a comment\n2 2\n# another\n255\n255 0 0  0 255 0\n0 0 255 7 8\n9\n'
    yield 'pgm-text', b'P2\n3 2\n15\n0 1 2 3 14 15\n'
    yield 'ppm-few', b'P6 3 2 100\n' + bytes(range(0, 90, 5))
    yield 'ppm-16', b'P6 3 2 65535\n' + wide[:2, :3, :3].astype('>u2').tobytes()
    yield 'pgm-few', b'P5\n4 2\n7\n' + bytes(range(8))


def png_with(png, kind, data):
    return png[:33] + png_chunk(kind, data) + png[33:]


def profiled():
    """A display profile whose red and blue have changed places, so that who applies it changes every pixel."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
    at = {bytes(profile[o : o + 4]): o for o in range(132, 132 + 12 * struct.unpack_from('>I', profile, 128)[0], 12)}
    red, blue = at[b'rXYZ'], at[b'bXYZ']
    profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = profile[blue + 4 : blue + 12], profile[red + 4 : red + 12]
    return bytes(profile)


def images():
    fixture = Fixture()
    rgb = Image.fromarray(smooth(13, 12))
    cases = list(files())
    cases += [(f'{kind}-profile', saved(rgb, kind, icc_profile=profiled(), **more)) for kind, more in
              [('PNG', {}), ('JPEG', {'quality': 95, 'subsampling': 0}), ('WEBP', {'lossless': True})]]
    for name, data in cases:
        picture = Image.open(io.BytesIO(data)).convert('RGB')
        fixture.case(
            {'name': name.lower()},
            file={'bytes': torch.frombuffer(bytearray(data), dtype=torch.uint8)},
            out={'rgb': torch.from_numpy(np.asarray(picture).copy())},
        )
    return fixture


def bmp(bits, compression, pixels, width, height, palette=b'', masks=b'', used=0):
    """A BMP of a kind that Pillow reads and does not write."""
    begin = 14 + 40 + len(masks) + len(palette)
    head = struct.pack('<IiiHHIIiiII', 40, width, height, 1, bits, compression, len(pixels), 0, 0, used, 0)
    return b'BM' + struct.pack('<IHHI', begin + len(pixels), 0, 0, begin) + head + masks + palette + pixels


def bmps():
    rgb = Image.fromarray(smooth(9, 11))
    grey = Image.fromarray(smooth(7, 10, 1)[:, :, 0])
    for name, picture in [('rgb', rgb), ('rgba', rgb.convert('RGBA')), ('grey', grey), ('bits', grey.convert('1')), ('palette', rgb.quantize(17))]:
        yield f'bmp-{name}', saved(picture, 'BMP')
    words = (np.arange(5 * 6, dtype=np.uint32).reshape(5, 6) * 2654435761 % 65536).astype('<u2').tobytes()
    yield 'bmp-555', bmp(16, 0, words, 6, 5)
    yield 'bmp-565', bmp(16, 3, words, 6, 5, masks=struct.pack('<III', 0xF800, 0x7E0, 0x1F))
    yield 'bmp-from-the-top', bmp(24, 0, bytes(range(0, 240, 10)) * 2, 5, -3)
    yield 'bmp-32', bmp(32, 0, bytes(range(0, 240, 5)), 4, 3)
    colors = bytes(range(0, 192, 3))
    nibbles = bytes([0x12, 0x34, 0x50, 0, 0x67, 0x89, 0xA0, 0, 0xBC, 0xDE, 0xF0, 0])
    yield 'bmp-four-bits', bmp(4, 0, nibbles, 5, 3, palette=colors, used=16)
    yield 'bmp-few-colors', bmp(8, 0, bytes([0, 1, 2, 1, 2, 0, 1, 1]), 4, 2, palette=colors[:12], used=3)
    runs = bytes([3, 1, 2, 2, 0, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 0, 2, 2, 0, 3, 7, 0, 1])
    yield 'bmp-runs-8', bmp(8, 1, runs, 5, 3, palette=colors, used=16)
    runs = bytes([5, 0x12, 0, 0, 0, 5, 0x34, 0x56, 0x70, 0, 0, 0, 2, 0x89, 3, 0xAB, 0, 1])
    yield 'bmp-runs-4', bmp(4, 2, runs, 5, 3, palette=colors, used=16)


def more_files():
    rgb = Image.fromarray(smooth(13, 17))
    rgba = Image.fromarray(smooth(9, 11, 4), 'RGBA')
    grey = Image.fromarray(smooth(9, 12, 1)[:, :, 0])
    turned = Image.Exif()
    turned[0x0112] = 6
    yield from bmps()
    yield 'gif', saved(rgb.quantize(30), 'GIF')
    yield 'gif-grey', saved(grey, 'GIF')
    yield 'gif-rows-apart', saved(rgb.quantize(30), 'GIF', interlace=1)
    yield 'gif-animated', saved(rgb.quantize(9), 'GIF', save_all=True, append_images=[rgb.rotate(90).quantize(9)])
    for kind in ['raw', 'tiff_lzw', 'tiff_adobe_deflate', 'packbits', 'jpeg']:
        yield f'tiff-{kind}', saved(rgb, 'TIFF', compression=kind)
    for name, picture in [('rgba', rgba), ('grey', grey), ('palette', rgb.quantize(17)), ('bits', grey.convert('1')), ('cmyk', rgb.convert('CMYK')), ('grey-alpha', rgba.convert('LA'))]:
        yield f'tiff-{name}', saved(picture, 'TIFF')
    yield 'tiff-fax', saved(grey.convert('1'), 'TIFF', compression='group4')
    yield 'tiff-turned', saved(rgb, 'TIFF', exif=turned)
    yield 'tiff-pages', saved(rgb, 'TIFF', save_all=True, append_images=[rgb.rotate(90)])
    yield 'tiff-float', saved(Image.fromarray(np.linspace(-5, 300, 12 * 9, dtype=np.float32).reshape(9, 12)), 'TIFF')
    yield 'avif-444', saved(rgb, 'AVIF', quality=90, subsampling='4:4:4')
    yield 'avif-grey', saved(grey, 'AVIF', subsampling='4:0:0')
    yield 'avif-alpha', saved(rgba, 'AVIF', quality=90, subsampling='4:4:4')


def more_images():
    fixture = Fixture()
    for name, data in more_files():
        picture = Image.open(io.BytesIO(data)).convert('RGB')
        fixture.case(
            {'name': name},
            file={'bytes': torch.frombuffer(bytearray(data), dtype=torch.uint8)},
            out={'rgb': torch.from_numpy(np.asarray(picture).copy())},
        )
    # Read otherwise than by Pillow, or not.
    rgb = Image.fromarray(smooth(13, 17))
    wide = (np.arange(9 * 12, dtype=np.uint32).reshape(9, 12) * 2654435761 % 65536).astype(np.uint16)
    others = [
        ('tiff-ycbcr', saved(rgb.convert('YCbCr'), 'TIFF')),
        ('tiff-16', saved(Image.fromarray(wide), 'TIFF')),
        ('gif-clear', saved(rgb.quantize(9), 'GIF', transparency=3)),
        ('avif-420', saved(rgb, 'AVIF', quality=90)),
    ]
    for name, data in others:
        fixture.tensors[f'{name}/file/bytes'] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        fixture.tensors[f'{name}/out/rgb'] = torch.from_numpy(np.asarray(Image.open(io.BytesIO(data)).convert('RGB')).copy())
    fixture.tensors['tiff-16/out/values'] = torch.from_numpy(wide.astype(np.int32))
    return fixture


def depths():
    """16 bits as they are, which cv2.imread(file, IMREAD_UNCHANGED) gives too."""
    fixture = Fixture()
    values = (np.arange(9 * 12, dtype=np.uint32).reshape(9, 12) * 2654435761 % 65536).astype(np.uint16)
    values[0, :3] = [0, 1, 65535]
    grey = smooth(6, 7, 1)[:, :, 0]
    cases = [
        ('png-16', saved(Image.fromarray(values), 'PNG')),
        ('png-16-gamma', png_with(saved(Image.fromarray(values), 'PNG'), b'gAMA', struct.pack('>I', 45455))),
        ('png-8', saved(Image.fromarray(grey), 'PNG')),
        ('pgm-16', b'P5 12 9 65535\n' + values.astype('>u2').tobytes()),
    ]
    for name, data in cases:
        picture = np.asarray(Image.open(io.BytesIO(data))).astype(np.int32)
        fixture.case(
            {'name': name},
            file={'bytes': torch.frombuffer(bytearray(data), dtype=torch.uint8)},
            out={'values': torch.from_numpy(picture)},
        )
    return fixture


if __name__ == '__main__':
    main({'vision/more-images': more_images, 'vision/images': images, 'vision/depths': depths})
