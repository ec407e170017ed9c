// Runs `voxtorch WORDS…` for each list of words that it reads, one after another in one process: node runs.mjs MAIN < JSON.
// Each run evaluates the entry anew and ends when its event loop has nothing left to do.
import { readFileSync, writeSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const main = pathToFileURL(process.argv[2])
const commands = JSON.parse(readFileSync(0, 'utf8'))
const results = []
let output
for (const name of ['stdout', 'stderr']) {
  process[name].write = (text) => {
    output[name] += text
    return true
  }
}

function start() {
  output = { stdout: '', stderr: '' }
  process.exitCode = undefined
  process.argv = [process.argv[0], main.pathname, ...commands[results.length]]
  import(`${main}?run=${results.length}`)
}

process.on('beforeExit', (code) => {
  results.push({ status: code, ...output })
  if (results.length < commands.length) start()
})
process.on('exit', () => {
  process.exitCode = 0
  const text = Buffer.from(JSON.stringify(results))
  for (let at = 0; at < text.length; ) at += writeSync(1, text, at)
})
start()
