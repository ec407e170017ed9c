// Decoders of compressed audio, for the thread that decodes (lib/audio/decoder-worker.ts): called directly and not as
// operators, because they read bytes of JavaScript where they are, and need no tensors.
#include "core/audio/audio_decoder.h"

#include <cmath>
#include <cstring>

#include "binding/environment.h"
#include "core/audio/pcm.h"

namespace voxtorch {
namespace {

// One of the two, until it is closed.
struct Codec {
  std::unique_ptr<audio::StreamDecoder> stream;
  std::unique_ptr<audio::PacketDecoder> packets;
  audio::DecodedAudio decoded;
};

struct Bytes {
  const uint8_t* data = nullptr;
  size_t count = 0;
};

Bytes bytes_of(const Napi::CallbackInfo& info, size_t index) {
  napi_typedarray_type kind = napi_int8_array;
  Bytes bytes;
  void* data = nullptr;
  const napi_status status =
      napi_get_typedarray_info(info.Env(), info[index], &kind, &bytes.count, &data, nullptr, nullptr);
  if (status != napi_invalid_arg) check(status, "napi_get_typedarray_info");
  if (status != napi_ok || kind != napi_uint8_array) fail(ErrorKind::kArguments, "expected a Uint8Array");
  bytes.data = static_cast<const uint8_t*>(data);
  return bytes;
}

struct Floats {
  float* data = nullptr;
  size_t count = 0;
};

Floats floats_of(napi_env env, napi_value value) {
  napi_typedarray_type kind = napi_int8_array;
  Floats floats;
  void* data = nullptr;
  const napi_status status = napi_get_typedarray_info(env, value, &kind, &floats.count, &data, nullptr, nullptr);
  if (status != napi_invalid_arg) check(status, "napi_get_typedarray_info");
  if (status != napi_ok || kind != napi_float32_array) fail(ErrorKind::kArguments, "expected a Float32Array");
  floats.data = static_cast<float*>(data);
  return floats;
}

bool flag(const Napi::CallbackInfo& info, size_t index) {
  bool value = false;
  check(napi_get_value_bool(info.Env(), info[index], &value), "napi_get_value_bool");
  return value;
}

Codec& codec_of(const Napi::CallbackInfo& info) {
  void* codec = nullptr;
  if (napi_get_value_external(info.Env(), info[0], &codec) != napi_ok || codec == nullptr)
    fail(ErrorKind::kArguments, "expected a decoder");
  return *static_cast<Codec*>(codec);
}

audio::StreamDecoder& stream_of(const Napi::CallbackInfo& info) {
  Codec& codec = codec_of(info);
  if (codec.stream == nullptr) fail(ErrorKind::kArguments, "expected an open decoder of a stream");
  return *codec.stream;
}

// { channelData, sampleRate }, or undefined for no samples.
Napi::Value result(Napi::Env env, audio::DecodedAudio& decoded) {
  if (decoded.frames() == 0) return env.Undefined();
  const Napi::Array planes = Napi::Array::New(env, decoded.channels());
  for (size_t i = 0; i < decoded.channels(); ++i) {
    const Napi::Float32Array plane = Napi::Float32Array::New(env, decoded.frames());
    std::memcpy(plane.ArrayBuffer().Data(), decoded.channel(i), sizeof(float) * decoded.frames());
    planes.Set(static_cast<uint32_t>(i), plane);
  }
  const Napi::Object object = Napi::Object::New(env);
  object.Set("channelData", planes);
  object.Set("sampleRate", static_cast<double>(decoded.sample_rate()));
  return object;
}

// openCodec(format: 'flac' | 'mp3' | 'vorbis', first: Uint8Array): a decoder, closed by closeCodec or when it is
// collected. `first`: the first packet of Vorbis.
Napi::Value open_codec(Environment&, const Napi::CallbackInfo& info) {
  const std::string format = info[0].ToString();
  const Bytes first = bytes_of(info, 1);
  auto codec = std::make_unique<Codec>();
  if (format == "flac")
    codec->stream = audio::flac_decoder();
  else if (format == "mp3")
    codec->stream = audio::mp3_decoder();
  else if (format == "vorbis")
    codec->packets = audio::vorbis_decoder(first.data, first.count);
  else
    fail(ErrorKind::kArguments, "expected 'flac', 'mp3' or 'vorbis', got '" + format + "'");
  const auto external = Napi::External<Codec>::New(info.Env(), codec.get(), [](Napi::Env, Codec* old) { delete old; });
  static_cast<void>(codec.release());
  return external;
}

// closeCodec(decoder): frees its memory.
Napi::Value close_codec(Environment&, const Napi::CallbackInfo& info) {
  codec_of(info) = Codec();
  return info.Env().Undefined();
}

// feedCodec(decoder, bytes: Uint8Array, isEnd: boolean): adds the next bytes of a stream.
Napi::Value feed_codec(Environment&, const Napi::CallbackInfo& info) {
  audio::StreamDecoder& stream = stream_of(info);
  const Bytes bytes = bytes_of(info, 1);
  stream.feed(bytes.data, bytes.count);
  if (flag(info, 2)) stream.end();
  return info.Env().Undefined();
}

// nextOfCodec(decoder, bytes: number): frames of a stream with about as many bytes of samples, or undefined if it needs
// more input.
Napi::Value next_of_codec(Environment&, const Napi::CallbackInfo& info) {
  audio::StreamDecoder& stream = stream_of(info);
  return result(info.Env(), stream.next(static_cast<size_t>(std::max(1.0, number(info, 1)))));
}

// decodePackets(decoder, bytes: Uint8Array, lengths: number[], granule: number, isLast: boolean): the samples of
// successive packets, or undefined. The granule position, NaN for none, and the end of the stream are those of the last
// packet.
Napi::Value decode_packets(Environment&, const Napi::CallbackInfo& info) {
  Codec& codec = codec_of(info);
  if (codec.packets == nullptr) fail(ErrorKind::kArguments, "expected an open decoder of packets");
  const Bytes bytes = bytes_of(info, 1);
  const Napi::Array lengths = info[2].As<Napi::Array>();
  const double granule = number(info, 3);
  const bool is_last = flag(info, 4);
  const uint32_t count = lengths.Length();
  codec.decoded.clear();
  size_t at = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const double length = lengths.Get(i).ToNumber().DoubleValue();
    if (!(length >= 0 && length <= static_cast<double>(bytes.count - at)))
      fail(ErrorKind::kArguments, "expected packets within their bytes");
    const auto size = static_cast<size_t>(length);
    const bool is_final = i + 1 == count;
    codec.packets->decode({bytes.data + at, size, is_final ? granule : std::nan(""), is_final && is_last},
                          codec.decoded);
    at += size;
  }
  return result(info.Env(), codec.decoded);
}

// decodePcm(bytes: Uint8Array, encoding: number, isBigEndian: boolean, planes: Float32Array[]): interleaved samples to
// one array per channel, all of the same length.
Napi::Value decode_pcm(Environment&, const Napi::CallbackInfo& info) {
  const Bytes bytes = bytes_of(info, 0);
  const double code = number(info, 1);
  if (!(code >= 0 && code < audio::kPcmEncodings)) fail(ErrorKind::kArguments, "expected an encoding of samples");
  const auto encoding = static_cast<audio::PcmEncoding>(static_cast<int>(code));
  const bool is_big_endian = flag(info, 2);
  const Napi::Array planes = info[3].As<Napi::Array>();
  const size_t channels = planes.Length();
  const size_t width = channels * audio::pcm_width(encoding);
  for (uint32_t i = 0; i < channels; ++i) {
    const Floats plane = floats_of(info.Env(), planes.Get(i));
    if (plane.count > bytes.count / width) fail(ErrorKind::kArguments, "expected the bytes of all samples");
    audio::decode_pcm(bytes.data, encoding, is_big_endian, channels, i, plane.count, plane.data);
  }
  return info.Env().Undefined();
}

// copyFloats(values: Float32Array) with cells: tensor, offset. To the elements of a contiguous float32 tensor of the
// CPU.
Napi::Value copy_floats(Environment& self, const Napi::CallbackInfo& info) {
  self.guarded("copy", [&] {
    Reader cells = self.arguments();
    const at::Tensor tensor = read_tensor(next(cells), self.slab);
    const int64_t offset = read_int(next(cells));
    check_free(tensor, Use::kWrite);
    const Floats values = floats_of(info.Env(), info[0]);
    if (!tensor.is_cpu() || tensor.scalar_type() != at::kFloat || !tensor.is_contiguous())
      fail(ErrorKind::kArguments, "expected a contiguous float32 tensor of the CPU");
    if (offset < 0 || offset > tensor.numel() || static_cast<int64_t>(values.count) > tensor.numel() - offset)
      fail(ErrorKind::kArguments, "expected values that fit into the tensor");
    if (values.count > 0)
      std::memcpy(tensor.mutable_data_ptr<float>() + offset, values.data, sizeof(float) * values.count);
  });
  return info.Env().Undefined();
}

// oggChecksum(page: Uint8Array): with zeros in place of its field.
Napi::Value ogg_checksum(Environment&, const Napi::CallbackInfo& info) {
  const Bytes page = bytes_of(info, 0);
  return Napi::Number::New(info.Env(), audio::ogg_checksum(page.data, page.count));
}

// beginsMp3(bytes: Uint8Array, isEnd: boolean): whether a frame begins there, and another or the end of the file
// follows it.
Napi::Value begins_mp3(Environment&, const Napi::CallbackInfo& info) {
  const Bytes bytes = bytes_of(info, 0);
  return Napi::Boolean::New(info.Env(), audio::begins_mp3(bytes.data, bytes.count, flag(info, 1)));
}

}  // namespace

void export_audio(Napi::Object exports) {
  export_function<open_codec>(exports, "openCodec");
  export_function<close_codec>(exports, "closeCodec");
  export_function<feed_codec>(exports, "feedCodec");
  export_function<next_of_codec>(exports, "nextOfCodec");
  export_function<decode_packets>(exports, "decodePackets");
  export_function<decode_pcm>(exports, "decodePcm");
  export_function<copy_floats>(exports, "copyFloats");
  export_function<ogg_checksum>(exports, "oggChecksum");
  export_function<begins_mp3>(exports, "beginsMp3");
}

}  // namespace voxtorch
