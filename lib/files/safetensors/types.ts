import type { Device, DType } from '../../tensor/dtype.js'
import type { Tensor } from '../../tensor/tensor.js'

export interface SafetensorsFile {
  /** Tensors by name, in the order of their bytes. */
  tensors: Record<string, Tensor>
  /** Entries of `__metadata__`. */
  metadata: Record<string, string>
}

export interface LoadSafetensorsOptions {
  /**
   * Return views of one private mapping of the file instead of copies: nothing is read until it is used, and processes share
   * the memory. For frozen weights. Changing such a tensor in place does not change the file. The file may be replaced by a
   * rename, as every writer of voxtorch does. If another program truncates it, using a tensor after its new end crashes the
   * process (SIGBUS), as in PyTorch; the file's name is printed then. A tensor that is not aligned to its elements' size is
   * copied. Default false.
   */
  mmap?: boolean
  /** Device of the tensors. Default: that of `withDevice`, else the CPU. Not with `mmap`. */
  device?: Device
  /** Load only these tensors, by name or by a function of the name; nothing else is read. Default: all. */
  names?: readonly string[] | ((name: string) => boolean)
}

/** Header of one tensor. */
export interface SafetensorsEntry {
  /** Dtype; null if voxtorch has none for it; `format` names it. */
  dtype: DType | null
  /** The format's name of the dtype, such as `BF16`. */
  format: string
  shape: number[]
  /** Number of bytes. */
  bytes: number
  /** Offset in the file of the first byte. */
  offset: number
}

export interface SafetensorsHeader {
  /** Tensors by name, in the order of their bytes. Without prototype, so that any name is safe. */
  tensors: Record<string, SafetensorsEntry>
  /** Entries of `__metadata__`. */
  metadata: Record<string, string>
}
