import { dirname, resolve } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import type { Device } from '../../../tensor/index.js'
import type { SpectraJsonlRecord } from '../data/record.js'

export const predict = commandRule({
  name: 'predict',
  summary: 'Predict the label of each turn in a file with a fine-tuned network: one line of JSON per turn.',
  details: `  voxtorch spectra predict turns.jsonl --model spectra-mood/best

The file has the format of the training data; labels are optional.`,
  files: 'TURNS.jsonl',
  options: {
    model: { type: 'string', help: 'folder that `spectra train` saved', placeholder: 'dir' },
    device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  },
  async run({ model, device }, files) {
    const [file, ...more] = files
    if (file === undefined || more.length > 0) {
      throw new ConfigError(`predict: expected one FILE.jsonl, got ${files.length}.`)
    }
    if (model === undefined) {
      throw new ConfigError('--model: expected a fine-tuned network, got nothing. Add --model OUTPUT/best.')
    }
    const { readJsonl } = await import('../../../files/json/jsonl.js')
    const { SpectraClassifier } = await import('../answer/classifier.js')
    const factory = device === undefined ? {} : { device: device as Device }
    const clip = (path?: string | null, start?: number, end?: number) =>
      path ? { path: resolve(dirname(file), path), ...defined({ start, end }) } : null
    using classifier = await SpectraClassifier.fromPretrained(model, factory)
    for await (const record of readJsonl(file)) {
      const turn = record as SpectraJsonlRecord
      const { text, words, history, historyAudio } = turn
      const spoken = { text: text ?? words ?? '', audio: clip(turn.audio, turn.start, turn.end) }
      const before = history && { history, historyAudio: clip(historyAudio, turn.historyStart, turn.historyEnd) }
      const [answer] = await classifier.classify([{ ...spoken, ...before }])
      console.log(JSON.stringify({ ...(turn.id !== undefined && { id: turn.id }), ...answer }))
    }
    return 0
  },
})
