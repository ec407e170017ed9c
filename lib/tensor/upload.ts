import type { Device } from './dtype.js'
import { scope } from './scope.js'
import type { Tensor } from './tensor.js'

/**
 * A tensor on another device. From the CPU to CUDA it goes through pinned memory, so that the event loop does not wait for
 * what the device still has to do. @internal
 */
export const upload = (tensor: Tensor, device: Device): Tensor =>
  // A graph goes through `to` alone.
  tensor.device === 'cpu' && device.startsWith('cuda') && !tensor.requiresGrad
    ? scope(() => tensor.pinMemory().to(device, { nonBlocking: true }))
    : tensor.to({ device })
