import type { Device, DType } from '../index.js'
import type { ChatModelLoader } from '../serve/index.js'

/**
 * What `voxtorch serve` can serve, by name. A loader imports its system itself, so that the other commands do not load
 * libtorch.
 */
export const chatModels: Record<string, ChatModelLoader> = {
  async salmonn(directory, options) {
    const { Salmonn } = await import('../systems/salmonn/network/network.js')
    const { SalmonnChat } = await import('../systems/salmonn/answer/chat.js')
    const { device, dtype } = options as { device?: Device; dtype?: DType }
    return new SalmonnChat(await Salmonn.fromPretrained(directory, { device, dtype }))
  },
}
