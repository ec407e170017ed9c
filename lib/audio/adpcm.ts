// ADPCM: 4 bits per sample, the difference to a predicted value in steps of adaptive size.

/** Layout of independent blocks: bytes of a block for all channels, and its frames. */
export interface AdpcmBlocks {
  encoding: 'ima' | 'ima4' | 'ms'
  blockBytes: number
  blockFrames: number
  /** For 'ms': pairs of weights of the two previous samples, in 256ths. */
  coefficients?: [number, number][]
}

/** Decode whole blocks to one float32 array per channel. */
export function decodeAdpcm(bytes: Uint8Array, blocks: AdpcmBlocks, channels: number): Float32Array[] {
  const { blockBytes, blockFrames, encoding } = blocks
  const count = bytes.length / blockBytes
  const planes = Array.from({ length: channels }, () => new Float32Array(count * blockFrames))
  for (let block = 0; block < count; block += 1) {
    const data = bytes.subarray(block * blockBytes, (block + 1) * blockBytes)
    const at = block * blockFrames
    for (let channel = 0; channel < channels; channel += 1) {
      const into = planes[channel]!.subarray(at, at + blockFrames)
      if (encoding === 'ms') decodeMs(data, blocks.coefficients!, channel, channels, into)
      else if (encoding === 'ima4') decodeIma4(data.subarray(34 * channel, 34 * (channel + 1)), into)
      else decodeIma(data, channel, channels, into)
    }
  }
  return planes
}

const word = (bytes: Uint8Array, at: number) => ((bytes[at]! | (bytes[at + 1]! << 8)) << 16) >> 16
const clip = (value: number) => Math.max(-32768, Math.min(32767, value))

// IMA Digital Audio Focus and Technical Working Groups, "Recommended Practices for Enhancing Digital Audio
// Compatibility in Multimedia Systems" 3.0, 1992: each step is a tenth above the one before.
const imaSteps = [
  7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107, 118,
  130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963, 1060,
  1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894, 6484,
  7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794, 32767,
]
const imaMoves = [-1, -1, -1, -1, 2, 4, 6, 8]

class ImaState {
  constructor(
    public sample: number,
    public index: number,
  ) {
    this.index = Math.min(88, index)
  }

  next(nibble: number): number {
    const step = imaSteps[this.index]!
    let difference = step >> 3
    if ((nibble & 4) !== 0) difference += step
    if ((nibble & 2) !== 0) difference += step >> 1
    if ((nibble & 1) !== 0) difference += step >> 2
    this.sample = clip(this.sample + ((nibble & 8) !== 0 ? -difference : difference))
    this.index = Math.max(0, Math.min(88, this.index + imaMoves[nibble & 7]!))
    return this.sample / 32768
  }
}

/** Decode IMA ADPCM of WAV: one sample per channel, then eight samples of each channel in turn. */
function decodeIma(bytes: Uint8Array, channel: number, channels: number, into: Float32Array): void {
  const state = new ImaState(word(bytes, 4 * channel), bytes[4 * channel + 2]!)
  into[0] = state.sample / 32768
  for (let i = 1; i < into.length; i += 1) {
    const place = i - 1
    const at = 4 * channels + 4 * (Math.floor(place / 8) * channels + channel) + ((place % 8) >> 1)
    into[i] = state.next(place % 2 === 0 ? bytes[at]! & 15 : bytes[at]! >> 4)
  }
}

/** Decode IMA ADPCM of QuickTime: 64 samples of one channel in 34 bytes. */
function decodeIma4(bytes: Uint8Array, into: Float32Array): void {
  const head = (((bytes[0]! << 8) | bytes[1]!) << 16) >> 16
  const state = new ImaState(head & ~127, head & 127)
  for (let i = 0; i < into.length; i += 1) {
    const byte = bytes[2 + (i >> 1)]!
    into[i] = state.next(i % 2 === 0 ? byte & 15 : byte >> 4)
  }
}

const msGrowth = [230, 230, 230, 230, 307, 409, 512, 614, 768, 614, 512, 409, 307, 230, 230, 230]

/** Decode Microsoft's ADPCM: index of weights, step and two samples per channel, then one sample of each channel in turn. */
function decodeMs(
  bytes: Uint8Array,
  coefficients: [number, number][],
  channel: number,
  channels: number,
  into: Float32Array,
): void {
  // Some files have invalid indices; as in other decoders, these select the first weights.
  const [first, second] = coefficients[bytes[channel]!] ?? coefficients[0]!
  let step = word(bytes, channels + 2 * channel)
  let last = word(bytes, 3 * channels + 2 * channel)
  let before = word(bytes, 5 * channels + 2 * channel)
  into[0] = before / 32768
  into[1] = last / 32768
  for (let i = 2; i < into.length; i += 1) {
    const place = (i - 2) * channels + channel
    const byte = bytes[7 * channels + (place >> 1)]!
    const nibble = place % 2 === 0 ? byte >> 4 : byte & 15
    const expected = (last * first + before * second) >> 8
    before = last
    last = clip(expected + step * (nibble >= 8 ? nibble - 16 : nibble))
    step = Math.max(16, (step * msGrowth[nibble]!) >> 8)
    into[i] = last / 32768
  }
}
