// Servers in processes of their own, for load.test.ts and cli.test.ts:
//   node process.mjs load            serves, prints its address; answers { rss, tensors } to each line on stdin
//   node process.mjs cli ARGUMENTS   runs `voxtorch serve ARGUMENTS` with a model that these tests know
import { createInterface } from 'node:readline'
import { memoryStats, serve } from '../../dist/index.js'
import { serveRule } from '../../dist/modules/cli/serve.js'
import { runCommand } from '../../dist/modules/kit/command.js'
import { Parrot } from './models.mjs'

const [mode, ...values] = process.argv.slice(2)
if (mode === 'load') {
  const model = new Parrot(2)
  const { url } = await serve(model, { maxConcurrent: 4, maxQueued: 100, maxBodyBytes: 6_000_000 })
  console.log(url)
  createInterface({ input: process.stdin }).on('line', async () => {
    for (let i = 0; i < 5; i++) {
      globalThis.gc?.()
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    const { liveTensors } = memoryStats()
    console.log(
      JSON.stringify({ rss: process.memoryUsage.rss(), liveTensors, running: model.running, begun: model.begun }),
    )
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
