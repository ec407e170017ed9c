import { unchecked } from '../../../base/settings.js'
import type { SalmonnPart } from '../network/adapter.js'
import { all, into, type Sections } from './rules.js'

/** Keys of voxtorch configurations. */
export const OWN_SECTIONS: Sections = {
  model: {
    ...all('model'),
    // 'none' stands for null, since an empty value in YAML means unset.
    beats: {
      type: 'string',
      set: (to, value: string) => {
        to.model.beats = value === 'none' ? null : value
      },
    },
  },
  data: all('data'),
  training: {
    ...all('recipe'),
    iterationsPerEpoch: {
      type: unchecked(),
      set: (to, value: number | 'data') => {
        // 'data' stands for null, since an empty value in YAML means unset.
        to.recipe.iterationsPerEpoch = value === 'data' ? null : value
      },
    },
    ...all('run'),
    stage: { ...into('run', 'stage'), type: [1, 2] },
    parts: {
      type: 'strings',
      set: (to, value: SalmonnPart[]) => {
        to.stage = value
      },
    },
    /** TrainingArguments; the Trainer checks them. */
    arguments: {
      type: unchecked(),
      set: (to, value: object) => {
        to.args = { ...value }
      },
    },
  },
  generation: all('generation'),
}
