import { describe, expect, it } from 'vitest'
import { noGrad, Spectra, type Tensor } from '../../../../lib/index.js'
import type { SpectraPretrainingInputs } from '../../../../lib/systems/spectra/index.js'
import { SpectraForPreTraining, SpectraForSequenceClassification } from '../../../../lib/systems/spectra/index.js'
import { expectClose, fixture, numbers, tensorsOf } from '../../../helpers.js'
import { type As, camelKeys, expectGradients, loadParameters } from '../../../models/networks.js'
import { configOf, type InputsOf, type SpectraCase } from './cases.js'

const file = await fixture<SpectraCase>('spectra/forward')
const pretraining = await fixture<SpectraCase>('spectra/pretraining')

describe('against plain PyTorch on transformers, each row alone or as the authors pad it', () => {
  it.each(
    file.cases.flatMap((each) => [
      { ...each, dtype: 'float32' as const, tolerance: 1e-5 },
      { ...each, dtype: 'float64' as const, tolerance: 1e-6 },
    ]),
  )('$name in $dtype', async ({ name, clips, config, counts, dtype, tolerance }) => {
    const inputs = { ...(camelKeys(tensorsOf(file, name, 'in')) as unknown as InputsOf), audiosPerText: clips }
    const expected = tensorsOf(file, name, 'out') as Record<'states' | 'mask', Tensor> & Record<string, Tensor>
    const network = inputs.labels
      ? SpectraForSequenceClassification.fromConfig(configOf(config), { dtype })
      : Spectra.fromConfig(configOf(config), { dtype })
    loadParameters(network.eval(), file, name)
    expect(network.frameCounts(numbers(inputs.audioLengths).map(Number))).toEqual(counts)
    const check = async (outputAttentions: boolean) => {
      const output = await network.forward({ ...inputs, outputAttentions })
      expect(output.attentionMask.equal(expected.mask), 'mask').toBe(true)
      expectClose(output.lastHiddenState.mul(expected.mask.unsqueeze(-1)), expected.states, tolerance, 'states')
      if ('logits' in output) expectClose(output.logits, expected.logits as Tensor, tolerance, 'logits')
      return output
    }

    const output = await check(false)
    const { states } = tensorsOf(file, name, 'cotangent')
    if ('logits' in output) expectClose(output.loss as Tensor, expected.loss as Tensor, tolerance, 'loss')
    const back = (result: typeof output) =>
      ('logits' in result ? (result.loss as Tensor) : result.lastHiddenState.mul(states as Tensor).sum()).backward()
    await back(output)
    const again = async (as: As) => back(await network.forward({ ...inputs, inputValues: as(inputs.inputValues) }))
    await expectGradients(network, file, name, dtype === 'float64' ? { tolerance } : { again, exact: tolerance })
    await noGrad(() => check(false))
    const { attentions } = await check(true)
    const time = expected.mask.shape[1]
    expect(attentions.map(({ shape }) => shape)).toEqual(
      Array(config.num_fused_layers).fill([expected.mask.shape[0], 2, time, time]),
    )
  })
})

describe('the losses of pre-training', () => {
  it.each(pretraining.cases)('$name', async ({ name, config, counts }) => {
    const inputs = camelKeys(tensorsOf(pretraining, name, 'in')) as unknown as SpectraPretrainingInputs
    const expected = tensorsOf(pretraining, name, 'out')
    const network = SpectraForPreTraining.fromConfig(configOf(config)).eval()
    const own = tensorsOf(pretraining, name, 'param')
    noGrad(() =>
      network.loadStateDict({
        ...own,
        'mlm_head.bias': own['mlm_head.decoder.bias'] as Tensor,
        'mam_head.bias': own['mam_head.decoder.bias'] as Tensor,
      }),
    )
    expect(network.frameCounts(numbers(inputs.audioLengths).map(Number))).toEqual(counts)
    const check = async () => {
      const output = await network.forward(inputs)
      const pairs: [Tensor, string][] = [
        [output.loss, 'loss'],
        [output.mlmLoss, 'mlm'],
        [output.mamLoss, 'mam'],
        [output.crsLoss, 'crs'],
        [output.tppLoss, 'tpp'],
        [output.crsLogits, 'logits'],
        [output.startPredictions, 'starts'],
        [output.endPredictions, 'ends'],
      ]
      for (const [actual, key] of pairs) expectClose(actual, expected[key] as Tensor, 1e-5, key)
      return output
    }
    await (await check()).loss.backward()
    const names = tensorsOf(pretraining, name, 'grad')
    const grads = {
      ...names,
      'mlm_head.bias': names['mlm_head.decoder.bias'],
      'mam_head.bias': names['mam_head.decoder.bias'],
    }
    expect(Object.keys(grads).length).toBeGreaterThan(60)
    for (const head of ['mlm_head', 'mam_head']) {
      pretraining.tensors[`${name}/grad/${head}.bias`] = names[`${head}.decoder.bias`] as Tensor
    }
    await expectGradients(network, pretraining, name, {
      again: async (as) => (await network.forward({ ...inputs, inputValues: as(inputs.inputValues) })).loss.backward(),
      exact: 1e-6,
    })
    await noGrad(check)
  })
})
