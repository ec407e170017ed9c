import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as spectra from '../../../lib/systems/spectra/index.js'

const close = (actual: object, expected: Record<string, number>) => {
  expect(Object.keys(actual)).toEqual(Object.keys(expected))
  for (const [name, value] of Object.entries(actual)) expect(value, name).toBeCloseTo(expected[name]!, 7)
}

describe("SPECTRA's metrics", () => {
  // Computed with numpy and scikit-learn by the definitions of the published evaluation.
  it('gives the golden values of MOSI', () => {
    const truth = [-3, -1.2, 0, 0.4, 2.6, 0, 1.5, -2.5]
    const guess = [-3.4, -0.8, 0.1, -0.2, 2.4, -0.3, 1.5, -2.6]
    const { corr, f1Non0, accA2Non0, ...rest } = spectra.spectraSentimentMetrics(truth, guess)
    close(rest, { mae: 0.2625, accA7: 0.75, accA2: 0.75, f1: 0.75 })
    expect(corr).toBeCloseTo(0.9867384, 6)
    expect(accA2Non0).toBeCloseTo(5 / 6, 12)
    expect(f1Non0).toBeCloseTo(0.8285714, 7)
    expect(spectra.spectraMetrics(spectra.SPECTRA_TASKS.mosei, truth, guess)).toEqual(
      spectra.spectraSentimentMetrics(truth, guess),
    )
  })

  it('gives the golden values of MIntRec and IEMOCAP', () => {
    close(spectra.spectraIntentMetrics([0, 1, 3, 11, 11, 12], [0, 1, 2, 10, 11, 19]), {
      acc20: 0.5,
      f1Of20: 1 / 3,
      acc2: 5 / 6,
      f1Of2: 0.8285714285714286,
    })
    close(spectra.spectraEmotionMetrics([0, 1, 2, 1, 1], [0, 1, 2, 2, 1]), { accuracy: 0.8, f1: 0.8133333333333334 })
  })

  it('rounds halves to even and clips before', () => {
    // 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, -0.5 -> 0, -1.5 -> -2, 9 -> 3
    const { accA7 } = spectra.spectraSentimentMetrics([0, 2, 2, 0, -2, 3], [0.5, 1.5, 2.5, -0.5, -1.5, 9])
    expect(accA7).toBe(1)
    expect(spectra.spectraSentimentMetrics([1, 3, -1], [0.5, 2.5, -0.5]).accA7).toBe(0)
  })

  it('says NaN where there is nothing to measure', () => {
    const zeros = spectra.spectraSentimentMetrics([0, 0], [0.1, -0.1])
    expect([zeros.accA2Non0, zeros.f1Non0, zeros.corr]).toEqual([Number.NaN, Number.NaN, Number.NaN])
    expect(zeros.accA2).toBe(0.5)
    const constant = spectra.spectraSentimentMetrics([-1, 2], [0.5, 0.5])
    expect(constant.corr).toBeNaN()
    // Of the class that is never predicted F1 is 0: (0 · 1 + 2/3 · 1) / 2.
    expect(constant.f1Non0).toBeCloseTo(1 / 3, 12)
    const one = spectra.spectraSentimentMetrics([1, 2], [0.5, 3])
    expect([one.f1, one.f1Non0, one.accA2]).toEqual([1, 1, 1])
    expect(() => spectra.spectraSentimentMetrics([], [])).toThrow(vt.DataError)
    expect(() => spectra.spectraSentimentMetrics([1, 2], [1])).toThrow(vt.DataError)
    expect(() => spectra.spectraSentimentMetrics([1], [Number.NaN])).toThrow(vt.DataError)
  })

  it('measures logits of all shapes that a head has', () => {
    const before = vt.memoryStats().liveTensors
    vt.scope(() => {
      const labels = vt.tensor([1, -1], { dtype: 'float32' })
      const measure = spectra.spectraMetricsOf(spectra.SPECTRA_TASKS.mosi)
      expect(measure({ predictions: vt.tensor([[2], [-2]], { dtype: 'float32' }), labels }).mae).toBe(1)
      expect(measure({ predictions: vt.tensor([2, -2], { dtype: 'float32' }), labels }).mae).toBe(1)
      const own = spectra.spectraTask({ name: 'mine', kind: 'classification', labels: ['a', 'b'] })
      const logits = vt.tensor([[2, 1], [3, 1], [0, 4]], { dtype: 'float32' }) // biome-ignore format: rows
      expect(spectra.spectraMetricsOf(own)({ predictions: logits, labels: vt.tensor([0, 1, 1]) })).toEqual({
        accuracy: 2 / 3,
        f1: expect.closeTo(2 / 3, 9),
        macroF1: expect.closeTo(2 / 3, 9),
        uar: 0.75,
      })
    })
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('names the nearest task', () => {
    expect(() => spectra.publishedSpectraTask('mossi')).toThrow(/did you mean mosi/)
    expect(() => spectra.spectraTask({ name: 'x', kind: 'classification', labels: ['a', 'a'] })).toThrow(vt.ConfigError)
  })
})
