import { basename } from 'node:path'
import { defined } from '../base/check.js'
import { requireWeightsOf } from '../hub/weights.js'
import type { Device, DType } from '../index.js'
import type { OptionTable } from '../kit/options.js'
import type { ChatModelLoader } from '../serve/index.js'
import type { EmoVerseModelArguments } from '../systems/emoverse/configuration/apply.js'
import { EMOVERSE_SERVED_OPTIONS } from '../systems/emoverse/configuration/arguments.js'
import { USDM_ANSWER_OPTIONS } from '../systems/usdm/configuration/arguments.js'

/**
 * Loaders of the models of `voxtorch serve`, by name. A loader imports its system on demand, so that other commands do not load
 * libtorch.
 */
export const chatModels: Record<string, ChatModelLoader> = {
  async text(directory, options) {
    const { DecoderLM } = await import('../models/decoder/decoder-lm.js')
    const { TextChat } = await import('../serve/text-chat.js')
    const { Tokenizer } = await import('../text/tokenizer.js')
    const { device, dtype } = options as { device?: Device; dtype?: DType }
    requireWeightsOf('serve text: --model', directory, 'DecoderLM')
    const tokenizer = await Tokenizer.fromPretrained(directory)
    const model = await DecoderLM.fromPretrained(directory, { device, dtype })
    return new TextChat(model, tokenizer, { name: basename(directory, '.gguf') })
  },
  async audio(directory, options) {
    const { AudioLM } = await import('../models/audio-lm/audio-lm.js')
    const { AudioChat } = await import('../serve/audio-chat.js')
    const { device, dtype } = options as { device?: Device; dtype?: DType }
    const model = await AudioLM.fromPretrained(directory, { device, dtype })
    return new AudioChat(model, { name: basename(directory) })
  },
  async salmonn(directory, options) {
    const { Salmonn } = await import('../systems/salmonn/network/network.js')
    const { SalmonnChat } = await import('../systems/salmonn/answer/chat.js')
    const { device, dtype } = options as { device?: Device; dtype?: DType }
    return new SalmonnChat(await Salmonn.fromPretrained(directory, { device, dtype }))
  },
  async usdm(directory, options) {
    const { Usdm } = await import('../systems/usdm/network/network.js')
    const { UsdmChat } = await import('../systems/usdm/answer/chat.js')
    const { device, dtype, offload } = options as { device?: Device; dtype?: DType; offload?: boolean }
    return new UsdmChat(await Usdm.fromPretrained(directory, defined({ device, dtype, offload })))
  },
  async emoverse(directory, options) {
    const { emoverseOfArguments } = await import('../systems/emoverse/configuration/apply.js')
    const { EmoVerseChat } = await import('../systems/emoverse/answer/chat.js')
    const modelArguments = { ...options, model: directory } as EmoVerseModelArguments
    return new EmoVerseChat(await emoverseOfArguments(modelArguments))
  },
}

/** Options of `voxtorch serve` for a single model, by its name; they are passed to its loader. */
export const ownOptions = {
  emoverse: EMOVERSE_SERVED_OPTIONS,
  usdm: { offload: USDM_ANSWER_OPTIONS.offload },
} as const satisfies Record<string, OptionTable>
