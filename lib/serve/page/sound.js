// Clips as the server wants them: WAV, 16 kHz, mono.

export const RATE = 16_000

/** Any file that the browser can play, as samples of 16 kHz. */
export async function decodeFile(file) {
  const context = new OfflineAudioContext(1, 1, RATE)
  const buffer = await context.decodeAudioData(await file.arrayBuffer()).catch(() => {
    throw new Error(`${file.name} is no audio that this browser can read.`)
  })
  const mono = new Float32Array(buffer.length)
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    const samples = buffer.getChannelData(channel)
    for (let i = 0; i < mono.length; i++) mono[i] += samples[i] / buffer.numberOfChannels
  }
  return mono
}

/** Samples of one rate, as samples of 16 kHz. */
export async function toRate(samples, sampleRate) {
  if (sampleRate === RATE || samples.length === 0) return samples
  const context = new OfflineAudioContext(1, Math.ceil((samples.length * RATE) / sampleRate), RATE)
  const source = context.createBufferSource()
  source.buffer = context.createBuffer(1, samples.length, sampleRate)
  source.buffer.copyToChannel(samples, 0)
  source.connect(context.destination)
  source.start()
  return (await context.startRendering()).getChannelData(0)
}

/** 16-bit PCM. */
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

/** A blob's bytes as base64. */
export function toBase64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(',') + 1))
    reader.onerror = () => reject(reader.error)
    reader.readAsDataURL(blob)
  })
}
