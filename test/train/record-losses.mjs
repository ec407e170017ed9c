// Loaded before examples/custom-loop.ts: writes the losses that it gives to its bar, as JSON, to the file in LOSSES.
import { writeFileSync } from 'node:fs'
import { ProgressBar } from 'voxtorch'

const losses = []
const { tick } = ProgressBar.prototype
ProgressBar.prototype.tick = function (count, fields) {
  losses.push(fields.loss)
  return tick.call(this, count, fields)
}
process.on('exit', () => writeFileSync(process.env.LOSSES, JSON.stringify(losses)))
