import { tensor } from 'voxtorch'

tensor([1])
