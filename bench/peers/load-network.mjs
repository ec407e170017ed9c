// load-network.mjs [FOLDER]: WavLM of base size, from a folder or with fresh weights.
import { WavLM } from 'voxtorch'

const [folder] = process.argv.slice(2)
if (folder) await WavLM.fromPretrained(folder)
else new WavLM({})
