import type { Device, DType } from '../../tensor/dtype.js'
import type { Tensor } from '../../tensor/tensor.js'

export interface SafetensorsFile {
  /** The tensors by name, in the order of their bytes. */
  tensors: Record<string, Tensor>
  /** The texts of `__metadata__`. */
  metadata: Record<string, string>
}

export interface LoadSafetensorsOptions {
  /**
   * Views of one private mapping of the file instead of copies: nothing is read until it is used, and processes share the
   * memory. For frozen weights. Changing such a tensor in place changes nothing in the file. The file may be replaced by a
   * rename, as every writer of voxtorch does. One that another program cuts short ends the process (SIGBUS) when a tensor
   * behind its new end is used, as it does in PyTorch; its name is printed then. A tensor that does not start at a multiple of its
   * elements' size is copied. Default false.
   */
  mmap?: boolean
  /** Where the tensors go. Default: that of `withDevice`, else the CPU. Not with `mmap`. */
  device?: Device
  /** Only these tensors, by name or by a function of the name; nothing else is read. Default: all. */
  names?: readonly string[] | ((name: string) => boolean)
}

/** What the head says of one tensor. */
export interface SafetensorsEntry {
  /** Null where libtorch's dtypes in voxtorch have no counterpart; `format` names it. */
  dtype: DType | null
  /** The format's own name of the dtype, such as `BF16`. */
  format: string
  shape: number[]
  /** How many bytes it has. */
  bytes: number
  /** Where in the file they begin. */
  offset: number
}

export interface SafetensorsHeader {
  /** By name, in the order of their bytes. No prototype, so that any name is safe. */
  tensors: Record<string, SafetensorsEntry>
  /** The texts of `__metadata__`. */
  metadata: Record<string, string>
}
