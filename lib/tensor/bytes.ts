import { noGrad, scope } from './scope.js'
import type { Tensor } from './tensor.js'

/** Return the bytes of a tensor in row-major order, in its own dtype. */
export const tensorBytes = (tensor: Tensor): Promise<Uint8Array> =>
  noGrad(() =>
    scope(async () => {
      const flat = tensor.detach().to({ device: 'cpu' }).contiguous().reshape([-1])
      // JavaScript has no typed array for these dtypes.
      const plain = /^(bfloat16|float16)$/.test(flat.dtype) ? flat.view('int16') : flat
      const { buffer, byteOffset, byteLength } = await plain.data()
      return new Uint8Array(buffer.slice(byteOffset, byteOffset + byteLength))
    }),
  )
