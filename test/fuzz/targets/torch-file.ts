import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { finish } from '../../../lib/files/pickle/result.js'
import { readTorch } from '../../../lib/files/torch/torch.js'
import { CheckpointError, scope } from '../../../lib/index.js'
import { type FuzzTarget, fixtureFiles } from './target.js'

export const target: FuzzTarget = {
  name: 'torch-file',
  seeds: () => [...fixtureFiles('torch'), ...fixtureFiles('torch-refused')].filter(({ length }) => length < 12_000),
  async run(bytes) {
    await scope(async () => {
      const place = new Place('fuzz.pt', CheckpointError)
      await finish(await readTorch(new MemorySource(bytes, place)), place, { encoding: 'utf-8' })
    })
  },
  words: [
    'storage',
    'FloatStorage',
    'LongStorage',
    '_rebuild_tensor_v2',
    'J\xff\xff\xff\xff',
    'K\x00',
    'K\x7f',
    'M\xff\xff',
    '\x85',
    'R',
    'tQ',
  ],
}
