// Audio clips, for waveforms and for the server. Clips keep their sample rate: the server resamples with the method of its
// model's training, which a browser does not have.

export const RATE = 16_000

/** Magic bytes of the formats that are sent to the server unchanged. */
const HEADS = { wav: /^RIFF....WAVE/s, flac: /^fLaC/, ogg: /^OggS/, mp3: /^(ID3|\xff[\xe2-\xff])/ }

/**
 * Decode a file that the browser can play. Return its samples at 16 kHz, and the file to send if the server supports its
 * format and it has at most `most` bytes.
 */
export async function readAudio(file, most) {
  const bytes = await file.arrayBuffer()
  const head = String.fromCharCode(...new Uint8Array(bytes, 0, Math.min(12, bytes.byteLength)))
  const format = Object.keys(HEADS).find((name) => HEADS[name].test(head))
  const blob = new Blob([bytes], { type: file.type })
  const samples = await decode(bytes, file.name)
  return { samples, sent: format && blob.size <= most ? { blob, format } : {} }
}

/** Return a recording at the microphone's rate, or at 16 kHz if it would have more than `most` bytes. */
export async function recordedAudio({ samples, sampleRate }, most) {
  const fits = 44 + 2 * samples.length <= most
  return fits ? { samples, rate: sampleRate } : { samples: await toRate(samples, sampleRate), rate: RATE }
}

async function decode(bytes, name) {
  const context = new OfflineAudioContext(1, 1, RATE)
  const buffer = await context.decodeAudioData(bytes).catch(() => {
    throw new Error(`${name}: this browser cannot decode the audio. Convert it to WAV.`)
  })
  const mono = new Float32Array(buffer.length)
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel)
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / buffer.numberOfChannels
  }
  return mono
}

async function toRate(samples, sampleRate) {
  if (sampleRate === RATE || samples.length === 0) return samples
  const context = new OfflineAudioContext(1, Math.ceil((samples.length * RATE) / sampleRate), RATE)
  const source = context.createBufferSource()
  source.buffer = context.createBuffer(1, samples.length, sampleRate)
  source.buffer.copyToChannel(samples, 0)
  source.connect(context.destination)
  source.start()
  return (await context.startRendering()).getChannelData(0)
}

/** Encode samples as a WAV file of 16-bit PCM. */
export function toWav(samples, rate = RATE) {
  const bytes = new DataView(new ArrayBuffer(44 + 2 * samples.length))
  const word = (at, text) => {
    for (let i = 0; i < 4; i++) bytes.setUint8(at + i, text.charCodeAt(i))
  }
  word(0, 'RIFF')
  bytes.setUint32(4, 36 + 2 * samples.length, true)
  word(8, 'WAVE')
  word(12, 'fmt ')
  bytes.setUint32(16, 16, true)
  bytes.setUint16(20, 1, true)
  bytes.setUint16(22, 1, true)
  bytes.setUint32(24, rate, true)
  bytes.setUint32(28, 2 * rate, true)
  bytes.setUint16(32, 2, true)
  bytes.setUint16(34, 16, true)
  word(36, 'data')
  bytes.setUint32(40, 2 * samples.length, true)
  for (let i = 0; i < samples.length; i++) {
    bytes.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(samples[i] * 32768))), true)
  }
  return new Blob([bytes.buffer], { type: 'audio/wav' })
}

/** Encode a blob as base64. */
export function toBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(',') + 1))
    reader.onerror = () => reject(reader.error)
    reader.readAsDataURL(blob)
  })
}
