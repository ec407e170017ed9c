import { Tensor } from '../tensor/index.js'
import { cuda } from '../tensor/runtime.js'

let warned = false

export function warnWithoutCuda(): void {
  if (warned || cuda.isAvailable()) return
  warned = true
  process.emitWarning('DataLoader.pinMemory: expected a CUDA device, got none, so memory is not pinned', {
    code: 'VOXTORCH_PIN_MEMORY',
  })
}

/** Copy the tensors in arrays, maps and plain objects to page-locked memory. Without CUDA, returns the batch unchanged. */
export function pinned<B>(batch: B): B {
  return (cuda.isAvailable() ? replaced(batch) : batch) as B
}

function replaced(value: unknown): unknown {
  if (value instanceof Tensor) return value.device === 'cpu' ? value.pinMemory() : value
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value
  if (Array.isArray(value)) return value.map(replaced)
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, replaced(item)]))
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, replaced(item)]))
}

/** Return the tensors in arrays, maps and an object's own fields. */
export function tensorsIn(value: unknown, found = new Set<Tensor>()): Set<Tensor> {
  if (value instanceof Tensor) return found.add(value)
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return found
  if (Array.isArray(value) && typeof value[0] === 'number') return found
  const items = Array.isArray(value) ? value : value instanceof Map ? value.values() : Object.values(value)
  for (const item of items) tensorsIn(item, found)
  return found
}
