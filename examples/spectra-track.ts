/**
 * Follows what a user wants through a spoken dialog with a trained tracker, by the library: `voxtorch spectra track` trains
 * one, scores it, and does this with options.
 *
 * `npx tsx examples/spectra-track.ts SPECTRA TRACKER turns.jsonl`: each line is a turn of one dialog, such as
 * `{"user": {"text": "a cheap hotel", "audio": {"path": "1.wav"}}, "system": {"text": "which area?"}}`.
 */

import * as vt from 'voxtorch'
import type { SpectraConfig } from 'voxtorch/spectra'
import * as spectra from 'voxtorch/spectra'
import { SpectraForDst } from 'voxtorch/spectra'

const [network = 'spectra', tracker = 'spectra-dst', turns = 'turns.jsonl'] = process.argv.slice(2)
const config = spectra.spokenWozConfig()
const tokenizer = await vt.Tokenizer.fromPretrained(network)
const model = await SpectraForDst.load(tracker, (encoder) => vt.Spectra.fromConfig(encoder as SpectraConfig))
const dialog = new spectra.DstTracker({ model, config, tokenizer })
for await (const turn of vt.readJsonl(turns)) {
  const { state } = await dialog.next(turn as spectra.DstTrackerTurn)
  console.log(state)
}
