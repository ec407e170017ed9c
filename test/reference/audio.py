"""Audio features, as torchaudio and transformers compute them, and files, as libsndfile and FFmpeg write them.

torchaudio works out its resampling filter in the samples' dtype, and in float32 that costs up to 2e-5; the cases here are
computed in float64, as transforms.Resample does.
"""

import io

import av
import numpy as np
import soundfile
import soxr
import torch
import torchaudio.compliance.kaldi as kaldi
from common import Fixture, coarse, main, randn
from torchaudio.functional import resample
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor
from transformers.audio_utils import mel_filter_bank


def resampling():
    fixture = Fixture()
    hann = {}
    kaiser = {'quality': 'kaiser', 'lowpassFilterWidth': 16, 'rolloff': 0.85, 'beta': 8.555504641634386}
    rates = [(44100, 16000), (48000, 16000), (8000, 16000), (16000, 22050), (22050, 16000), (3, 7), (1601, 1600)]
    for name, options in {'hann': hann, 'kaiser': kaiser}.items():
        for source, target in rates:
            samples = coarse(randn(f'resample-{source}-{target}', 400))
            keywords = {}
            if options:
                keywords = {
                    'resampling_method': 'sinc_interp_kaiser',
                    'lowpass_filter_width': 16,
                    'rolloff': 0.85,
                    'beta': 8.555504641634386,
                }
            out = resample(samples.double(), source, target, **keywords).float()
            fixture.case(
                {'name': f'{name}-{source}-{target}', 'from': source, 'to': target, 'options': options},
                **{'in': {'samples': samples}, 'out': {'samples': out}},
            )
    samples = coarse(randn('resample-44100-16000', 400))
    out = resample(samples.double(), 44100, 16000, resampling_method='sinc_interp_kaiser').float()
    fixture.case(
        {'name': 'kaiser-defaults', 'from': 44100, 'to': 16000, 'options': {'quality': 'kaiser'}},
        **{'in': {'samples': samples}, 'out': {'samples': out}},
    )
    samples = coarse(randn('resample-batch', 2, 3, 200))
    out = resample(samples.double(), 3, 2).float()
    fixture.case({'name': 'batch', 'from': 3, 'to': 2, 'options': {}}, **{'in': {'samples': samples}, 'out': {'samples': out}})
    # Tones below 0.9 of the new Nyquist frequency, faded in and out: what both designs must keep.
    time = np.arange(2205) / 44100
    fade = np.sin(np.pi * np.arange(2205) / 2205) ** 2
    tones = coarse(torch.from_numpy(fade * sum(np.sin(2 * np.pi * f * time + f) for f in (150, 1000, 3300, 7100)) / 4)).float()
    out = torch.from_numpy(soxr.resample(tones.double().numpy(), 44100, 16000, 'HQ')).float()
    fixture.case(
        {'name': 'soxr-hq', 'from': 44100, 'to': 16000, 'options': {'quality': 'high'}},
        **{'in': {'samples': tones}, 'out': {'samples': out}},
    )
    return fixture


def fbank():
    fixture = Fixture()
    cases = [
        ({}, {}),
        ({'num_mel_bins': 128}, {'nMels': 128}),
        ({'window_type': 'hanning', 'num_mel_bins': 112}, {'window': 'hann', 'nMels': 112}),
        ({'window_type': 'hamming'}, {'window': 'hamming'}),
        ({'window_type': 'blackman', 'blackman_coeff': 0.4}, {'window': 'blackman', 'blackmanCoefficient': 0.4}),
        ({'window_type': 'rectangular'}, {'window': 'rectangular'}),
        ({'snip_edges': False}, {'snipEdges': False}),
        ({'snip_edges': False, 'frame_shift': 30.0}, {'snipEdges': False, 'frameShift': 30}),
        ({'use_energy': True}, {'useEnergy': True}),
        (
            {'use_energy': True, 'raw_energy': False, 'htk_compat': True, 'energy_floor': 0.0},
            {'useEnergy': True, 'rawEnergy': False, 'htkCompat': True, 'energyFloor': 0},
        ),
        ({'use_power': False}, {'power': False}),
        ({'use_log_fbank': False}, {'log': False}),
        ({'vtln_warp': 1.1}, {'vtlnWarp': 1.1}),
        ({'vtln_warp': 0.9, 'vtln_low': 150.0, 'vtln_high': -700.0}, {'vtlnWarp': 0.9, 'vtlnLow': 150, 'vtlnHigh': -700}),
        ({'low_freq': 100.0, 'high_freq': -400.0}, {'fMin': 100, 'fMax': -400}),
        (
            {'preemphasis_coefficient': 0.0, 'remove_dc_offset': False, 'subtract_mean': True},
            {'preemphasis': 0, 'removeDc': False, 'subtractMean': True},
        ),
        (
            {'round_to_power_of_two': False, 'frame_length': 20.0, 'frame_shift': 5.0},
            {'roundToPowerOfTwo': False, 'frameLength': 20, 'frameShift': 5},
        ),
        ({'sample_frequency': 8000.0}, {'sampleRate': 8000}),
        ({'sample_frequency': 11025.0}, {'sampleRate': 11025}),
    ]
    samples = coarse(randn('fbank', 2, 1200)) * 3000
    fixture.case({'name': 'shared'}, **{'in': {'samples': samples}})
    for i, (theirs, ours) in enumerate(cases):
        out = torch.stack([kaldi.fbank(clip[None].double(), **theirs) for clip in samples]).float()
        fixture.case({'name': f'{i}', 'options': ours}, out={'features': out})
    return fixture


def mel():
    fixture = Fixture()
    noise = coarse(randn('mel-noise', 2, 2400, scale=0.1))
    fixture.case({'name': 'shared'}, **{'in': {'samples': noise}})
    for bands in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=bands)
        # The float64 path: what the float32 one approximates within 1.1e-5.
        out = torch.from_numpy(extractor._np_extract_fbank_features(noise.numpy(), 'cpu')).float()
        fixture.case({'name': f'whisper-{bands}', 'nMels': bands}, out={'features': out})
    for scale in ('slaney', 'htk'):
        for norm in ('slaney', None):
            bank = mel_filter_bank(65, 12, 50.0, 7600.0, 16000, norm=norm, mel_scale=scale)
            fixture.case(
                {'name': f'filters-{scale}-{norm}', 'melScale': scale, 'norm': norm or 'none'},
                out={'filters': torch.from_numpy(bank.T).float()},
            )
    clip = noise[:, :2048].double()
    padded = torch.nn.functional.pad(clip[:, None], (384, 384), 'reflect')[:, 0]
    window = torch.hann_window(1024, dtype=torch.float64)
    spectrum = torch.stft(padded, 1024, 256, window=window, center=False, return_complex=True)
    magnitude = (spectrum.real**2 + spectrum.imag**2 + 1e-9).sqrt()
    bank = torch.from_numpy(mel_filter_bank(513, 80, 0.0, 8000.0, 22050, norm='slaney', mel_scale='slaney').T)
    out = (bank @ magnitude).clamp(min=1e-5).log().float()
    fixture.case({'name': 'vocoder'}, out={'features': out})
    for n_fft, hop, win, power in ((512, 128, 400, True), (402, 100, 402, False), (14, 7, 14, True)):
        window = torch.hann_window(win, dtype=torch.float64)
        out = torch.stft(clip[0, :800], n_fft, hop, win, window, return_complex=True).abs()
        fixture.case(
            {'name': f'stft-{n_fft}', 'options': {'nFft': n_fft, 'hopLength': hop, 'winLength': win, 'power': power}},
            out={'features': (out**2 if power else out).float()},
        )
    return fixture


def seamless():
    fixture = Fixture()
    for count in (2400, 2640):  # 13 and 15 frames: the last of them is left out
        clip = coarse(randn(f'seamless-{count}', count, scale=0.1))
        for bands in (80, 24):
            extractor = SeamlessM4TFeatureExtractor(feature_size=bands, num_mel_bins=bands)
            out = extractor(clip.numpy(), sampling_rate=16000, return_tensors='pt')
            real = out['input_features'][0][out['attention_mask'][0].bool()]
            fixture.case({'name': f'{count}-{bands}', 'nMels': bands}, **{'in': {'samples': clip}, 'out': {'features': real}})
    return fixture


def normalisation():
    fixture = Fixture()
    clips = [coarse(randn(f'clip-{i}', n, scale=0.1) + 0.05) for i, n in enumerate((300, 500, 120))]
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    out = extractor([clip.numpy() for clip in clips], sampling_rate=16000, padding=True, return_tensors='pt')
    fixture.case(
        {'name': 'padded'},
        **{
            'in': {str(i): clip for i, clip in enumerate(clips)},
            'out': {'inputValues': out['input_values'], 'attentionMask': out['attention_mask'].long()},
        },
    )
    return fixture


def stereo(rate, seconds):
    """Two tones that start and stop softly, and a little noise."""
    count = int(rate * seconds)
    time = np.arange(count) / rate
    fade = np.minimum(1, np.minimum(time, time[::-1]) * 40)
    noise = randn(f'file-{rate}', 2, count, scale=0.01).numpy()
    tones = np.stack([np.sin(2 * np.pi * 440 * time), 0.5 * np.sin(2 * np.pi * 880 * time)])
    return coarse(torch.from_numpy(0.6 * fade * tones + fade * noise)).numpy().T


def with_soundfile(samples, rate, container, subtype):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    data = bytearray(file.getvalue())
    if container == 'OGG':
        with_fixed_serial(data)
    elif b'PEAK' in data:
        stamp = data.index(b'PEAK') + 12
        data[stamp : stamp + 4] = bytes(4)
    return bytes(data)


def with_fixed_serial(data):
    """Gives an Ogg stream the serial number 1 instead of a random one, and its pages the checksums of that."""
    at = 0
    while at < len(data):
        segments = data[at + 26]
        end = at + 27 + segments + sum(data[at + 27 : at + 27 + segments])
        data[at + 14 : at + 18] = (1).to_bytes(4, 'little')
        data[at + 22 : at + 26] = bytes(4)
        checksum = 0
        for byte in data[at:end]:
            checksum ^= byte << 24
            for _ in range(8):
                checksum = (checksum << 1) ^ (0x104C11DB7 if checksum & 0x80000000 else 0)
        data[at + 22 : at + 26] = checksum.to_bytes(4, 'little')
        at = end


def with_ffmpeg(samples, rate, container):
    file = io.BytesIO()
    with av.open(file, 'w', format=container) as output:
        stream = output.add_stream('aac', rate=rate, layout='stereo', options={'aac_pns': '0'})  # noise is made anew by each decoder
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T.astype(np.float32)), format='fltp', layout='stereo')
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def decoded_by_ffmpeg(data):
    with av.open(io.BytesIO(data)) as file:
        return np.concatenate([frame.to_ndarray() for frame in file.decode(audio=0)], 1)


def bytes_of(data):
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def wav_files():
    fixture = Fixture()
    for container, subtype in [
        *(('WAV', subtype) for subtype in ('PCM_U8', 'PCM_16', 'PCM_24', 'PCM_32', 'FLOAT', 'DOUBLE', 'ALAW', 'ULAW')),
        ('WAVEX', 'PCM_24'),
        ('WAVEX', 'FLOAT'),
        ('RF64', 'PCM_16'),
    ]:
        data = with_soundfile(stereo(8000, 0.02), 8000, container, subtype)
        samples, rate = soundfile.read(io.BytesIO(data), dtype='float32', always_2d=True)
        fixture.case(
            {'name': f'{container}-{subtype}', 'sampleRate': rate},
            file={'bytes': bytes_of(data)},
            out={'samples': torch.from_numpy(samples.T.copy())},
        )
    return fixture


def compressed_files():
    fixture = Fixture()
    for name, container, subtype in [
        ('flac16', 'FLAC', 'PCM_16'),
        ('flac24', 'FLAC', 'PCM_24'),
        ('mp3', 'MP3', 'MPEG_LAYER_III'),
        ('vorbis', 'OGG', 'VORBIS'),
        ('opus', 'OGG', 'OPUS'),
    ]:
        rate = 48000 if name == 'opus' else 16000
        data = with_soundfile(stereo(rate, 0.025 if name == 'opus' else 0.06), rate, container, subtype)
        samples, rate = soundfile.read(io.BytesIO(data), dtype='float32', always_2d=True)
        fixture.case(
            {'name': name, 'sampleRate': rate, 'format': name.rstrip('0123456789') if 'flac' in name else name},
            file={'bytes': bytes_of(data)},
            out={'samples': torch.from_numpy(samples.T.copy())},
        )
    for name, container in [('m4a', 'ipod'), ('aac', 'adts')]:
        data = with_ffmpeg(stereo(44100, 0.02), 44100, container)
        # The first block is the encoder's run-up, which our decoder leaves out.
        samples = decoded_by_ffmpeg(data)[:, 1024:]
        fixture.case(
            {'name': name, 'sampleRate': 44100, 'format': name},
            file={'bytes': bytes_of(data)},
            out={'samples': torch.from_numpy(samples.copy())},
        )
    return fixture


if __name__ == '__main__':
    main(
        {
            'audio/resample': resampling,
            'audio/fbank': fbank,
            'audio/mel': mel,
            'audio/normalize': normalisation,
            'audio/seamless': seamless,
            'audio/wav': wav_files,
            'audio/compressed': compressed_files,
        }
    )
