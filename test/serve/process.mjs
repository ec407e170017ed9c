// Servers in processes of their own, for load.slow.test.ts and cli.test.ts:
//   node process.mjs load            serves, prints its address; answers { rss, tensors } to each line on stdin
//   node process.mjs watch           the same with a model that sees
//   node process.mjs text DIRECTORY  the same with the language model of a folder
//   node process.mjs model FILE      the same with what the module's `chat` gives; `forget` of it empties what it keeps
//   node process.mjs cli ARGUMENTS   runs `voxtorch serve ARGUMENTS` with a model that these tests know
import { createInterface } from 'node:readline'
import { DecoderLM, memoryStats, Tokenizer } from '../../dist/index.js'
import { serveRule } from '../../dist/modules/cli/serve.js'
import { runCommand } from '../../dist/modules/kit/command.js'
import { serve, TextChat } from '../../dist/serve/index.js'
import { Parrot, Watcher } from './models.mjs'

const [mode, ...values] = process.argv.slice(2)
const makers = {
  load: () => new Parrot(2),
  watch: () => new Watcher(2),
  text: () => textChat(String(values[0])),
  model: async () => (await import(String(values[0]))).chat(),
}
if (Object.hasOwn(makers, mode)) {
  const model = await makers[mode]()
  const pictures = { maxConcurrent: 4, maxBodyBytes: 30_000_000 }
  const limits = { load: { maxConcurrent: 4, maxBodyBytes: 6_000_000 }, watch: pictures, model: pictures, text: {} }[
    mode
  ]
  const { url } = await serve(model, {
    ...limits,
    maxQueued: 200,
    queueTimeout: 600,
    bodyTimeout: 600,
    answerTimeout: 600,
  })
  console.log(url)
  createInterface({ input: process.stdin }).on('line', async () => {
    for (let i = 0; i < 5; i++) {
      globalThis.gc?.()
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    model.forget?.()
    const { liveTensors, kvCacheBytes } = memoryStats()
    const counts = model instanceof Parrot ? { running: model.running, begun: model.begun } : model.metrics?.()
    console.log(JSON.stringify({ rss: process.memoryUsage.rss(), liveTensors, kvCacheBytes, ...counts }))
  })
  process.stdin.on('end', () => process.exit(0))
} else {
  const models = {
    parrot: async (/** @type {string} */ directory, /** @type {object} */ options) => {
      console.error(`loaded ${directory} ${JSON.stringify(options)}`)
      return new Parrot(20)
    },
  }
  process.exitCode = await runCommand('voxtorch serve', serveRule(models), values)
}

async function textChat(/** @type {string} */ directory) {
  const model = await DecoderLM.fromPretrained(directory)
  const tokenizer = await Tokenizer.fromPretrained(directory)
  return new TextChat(model, tokenizer, { batching: { maxNumSeqs: 6, prefixCacheBytes: 2_000_000 } })
}
