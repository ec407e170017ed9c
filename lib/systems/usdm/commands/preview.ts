import { writeAtomicallySync } from '../../../base/atomic.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { commandRule } from '../../../kit/command.js'
import { USDM_OPTIONS } from '../configuration/arguments.js'

const { model, modelCacheDir, units } = USDM_OPTIONS

export const preview = commandRule({
  name: 'preview',
  summary: 'Show a training example of USDM, with the tokens that contribute to the loss in color.',
  details: `  voxtorch usdm preview preprocessed/train.txt --model CACHE --example 3
  voxtorch usdm preview preprocessed/train.txt --model CACHE --html example.html --clips user.wav,agent.wav

Use the tokenizer that the examples were made with. Repeated units are written once, with their count.`,
  files: 'EXAMPLES.txt',
  options: {
    ...{ model, modelCacheDir, units },
    example: { type: 'integer', help: 'number of the example, from 1', default: 1 },
    html: { type: 'string', help: 'HTML page to write instead of printing', placeholder: 'file' },
    clips: { type: 'list', help: 'audio files to embed in the page' },
  },
  async run({ example = 1, html, clips, ...rest }, [file, more]) {
    if (file === undefined || more !== undefined || example < 1) {
      throw new ConfigError(
        'preview: expected one file of examples, and --example of at least 1: voxtorch usdm preview FILE.',
      )
    }
    if (clips !== undefined && html === undefined) {
      throw new ConfigError('--clips: expected with --html, got it alone. Add --html FILE.', { argument: 'clips' })
    }
    const { readUsdmExamples } = await import('../data/examples.js')
    const { usdmTokenizerOfArguments } = await import('../configuration/apply.js')
    const { previewPage, previewText } = await import('../answer/preview.js')
    let place = 0
    for await (const found of readUsdmExamples(file)) {
      place += 1
      if (place < example) continue
      const tokenizer = await usdmTokenizerOfArguments(rest, rest.units)
      const title = `${file}, example ${example}`
      if (html === undefined) console.log(previewText(tokenizer, found, process.stdout.isTTY === true))
      else writeAtomicallySync(html, DataError, await previewPage(tokenizer, found, { title, clips: clips ?? [] }))
      return 0
    }
    throw new ConfigError(`--example: expected 1 to ${place}, the number of examples in ${file}, got ${example}.`, {
      argument: 'example',
    })
  },
})
