const SHAPES = ['1 rows of 768 to 256 in blocks of 64', '2 rows of 192 to 401 in blocks of 128', '3 rows of 320 to 257 in blocks of 256', '8 rows of 1024 to 130 in blocks of 64'] // biome-ignore format: one line
const PACKED = [false, true].map((nested) => `few rows of an NF4 weight, double quantisation ${nested}`)

/** Tests that cannot pass on the pretended device, by file and full name, with the reason. */
export const exclusions: readonly { file: string; tests: readonly string[]; reason: string }[] = [
  {
    file: 'test/kernels/few-rows.test.ts',
    tests: ['linear of a few rows without gradients', ...PACKED].map(
      (group) => `${group} > gives a row the same bits whatever comes with it`,
    ),
    reason: "The CPU's kernel for few rows promises it. A GPU's library of products chooses by the number of rows.",
  },
  {
    file: 'test/kernels/few-rows.test.ts',
    tests: PACKED.flatMap((group) => SHAPES.map((shape) => `${group} > ${shape} never make values in bfloat16`)),
    reason: 'A GPU makes the values in the dtype of the product, and a library multiplies them.',
  },
  {
    file: 'test/kernels/decode-step.test.ts',
    tests: [
      'rotary_append_ > positions that the cache does not have are refused',
      'decode_attention > positions that the cache or the mask does not have are refused',
    ],
    reason: 'The host would have to wait for the device to read a position. Places that are not there are left alone.',
  },
  {
    file: 'test/train/optimizers.test.ts',
    tests: ['optimiser > refuses a sparse gradient, in words, and takes its dense form'],
    reason: 'The pretended device has no sparse tensors, as a GPU does.',
  },
]

/** Files that do not run there at all, with the reason. */
export const leftOut: readonly { file: string; reason: string }[] = [
  {
    file: 'test/models/published.slow.test.ts',
    reason:
      'Networks of 135 million numbers take 20 minutes where every thread of a GPU is a fiber. Their tiny twins run.',
  },
  {
    file: 'test/models/whisper-published.slow.test.ts',
    reason: 'A hundred clips through Whisper base, of which the same holds.',
  },
]
