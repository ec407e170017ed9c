/** Right calls of the schedulers of lib/train. */
import { type Args, add, lib, many, of, options } from './define.js'
import { list, made, type Spec } from './values.js'

// ---- schedulers: made, stepped, their state taken back

const groups = (): Spec => options({ groups: many(options({ lr: 0.1, momentum: 0.9 })) })
const double = made('() => 2', () => () => 2)
const schedulers: [name: string, ...Args[]][] = [
  ['LambdaLR', of(groups(), double)],
  ['MultiplicativeLR', of(groups(), many(double))],
  ['StepLR', of(groups(), options({ stepSize: 3, gamma: 0.5 }))],
  ['MultiStepLR', of(groups(), options({ milestones: list([2, 5]), gamma: 0.5 }))],
  ['ConstantLR', of(groups()), of(groups(), options({ factor: 0.5, totalIters: 3 }))],
  ['LinearLR', of(groups()), of(groups(), options({ startFactor: 0.5, endFactor: 1, totalIters: 3 }))],
  ['ExponentialLR', of(groups(), options({ gamma: 0.9 }))],
  ['PolynomialLR', of(groups()), of(groups(), options({ totalIters: 3, power: 2 }))],
  ['CosineAnnealingLR', of(groups(), options({ tMax: 3, etaMin: 0.1 }))],
  ['CosineAnnealingWarmRestarts', of(groups(), options({ t0: 3, tMult: 2, etaMin: 0 }))],
  ['CyclicLR', of(groups(), options({ baseLr: 0.1, maxLr: list([1]), stepSizeUp: 2, mode: 'exp_range', gamma: 0.9 }))],
  ['OneCycleLR', of(groups(), options({ maxLr: 1, totalSteps: 9, pctStart: 0.3, threePhase: true }))],
  [
    'ReduceLROnPlateau',
    of(groups()),
    of(groups(), options({ mode: 'max', factor: 0.5, patience: 1, minLr: list([0]) })),
  ],
]
for (const [name, ...right] of schedulers) {
  add(
    name,
    (...args) => {
      const scheduler = new lib[name](...args)
      scheduler.step(...(name === 'ReduceLROnPlateau' ? [1] : []))
      scheduler.loadStateDict(scheduler.stateDict())
      return scheduler.lastLr.length
    },
    ...right,
  )
}
add(
  'StepLR.loadStateDict',
  (it) => new lib.StepLR!({ groups: [{ lr: 1 }] }, { stepSize: 2 }).loadStateDict(it),
  of(options({ step_size: 3, gamma: 0.1, base_lrs: list([1]), last_epoch: 4, _step_count: 5, _last_lr: list([0.1]) })),
)
add(
  'SequentialLR',
  (options) => {
    const optimizer = { groups: [{ lr: 1 }] }
    const parts = [new lib.StepLR!(optimizer, { stepSize: 2 }), new lib.ConstantLR!(optimizer)]
    const scheduler = new lib.SequentialLR!(optimizer, parts, options)
    scheduler.step()
    return scheduler.lastLr.length
  },
  of(options({ milestones: list([1]) })),
)
