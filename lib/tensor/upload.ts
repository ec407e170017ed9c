import type { Device } from './dtype.js'
import { scope } from './scope.js'
import type { Tensor } from './tensor.js'

/**
 * Return a tensor on another device. From the CPU to CUDA it is copied through pinned memory, so that the event loop does not
 * wait for pending work of the device. @internal
 */
export const upload = (tensor: Tensor, device: Device): Tensor =>
  // Autograd requires `to`.
  tensor.device === 'cpu' && device.startsWith('cuda') && !tensor.requiresGrad
    ? scope(() => tensor.pinMemory().to(device, { nonBlocking: true }))
    : tensor.to({ device })
