"""What the recipes' papers are, to be cited."""

from __future__ import annotations

from equilibrist.run import Reference

FARNIA = Reference(
    "F. Farnia and A. Ozdaglar, Do GANs always have Nash equilibria?, ICML 2020",
    "@inproceedings{farnia2020gans, title={Do {GANs} always have {Nash} equilibria?}, "
    "author={Farnia, Farzan and Ozdaglar, Asuman}, booktitle={ICML}, year={2020}}",
)
MIYATO = Reference(
    "T. Miyato, T. Kataoka, M. Koyama and Y. Yoshida, Spectral normalization for generative adversarial "
    "networks, ICLR 2018",
    "@inproceedings{miyato2018spectral, title={Spectral normalization for generative adversarial networks}, "
    "author={Miyato, Takeru and Kataoka, Toshiki and Koyama, Masanori and Yoshida, Yuichi}, "
    "booktitle={ICLR}, year={2018}}",
)
GULRAJANI = Reference(
    "I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin and A. Courville, Improved training of Wasserstein "
    "GANs, NeurIPS 2017",
    "@inproceedings{gulrajani2017improved, title={Improved training of {Wasserstein} {GANs}}, "
    "author={Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and "
    "Courville, Aaron}, booktitle={NeurIPS}, year={2017}}",
)
ARJOVSKY = Reference(
    "M. Arjovsky, S. Chintala and L. Bottou, Wasserstein generative adversarial networks, ICML 2017",
    "@inproceedings{arjovsky2017wasserstein, title={Wasserstein generative adversarial networks}, "
    "author={Arjovsky, Martin and Chintala, Soumith and Bottou, L{\\'e}on}, booktitle={ICML}, year={2017}}",
)
MESCHEDER = Reference(
    "L. Mescheder, S. Nowozin and A. Geiger, The numerics of GANs, NeurIPS 2017",
    "@inproceedings{mescheder2017numerics, title={The numerics of {GANs}}, "
    "author={Mescheder, Lars and Nowozin, Sebastian and Geiger, Andreas}, booktitle={NeurIPS}, year={2017}}",
)
LECUN = Reference(
    "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document "
    "recognition, Proc. IEEE 1998 (MNIST)",
    "@article{lecun1998gradient, title={Gradient-based learning applied to document recognition}, "
    "author={LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick}, "
    "journal={Proceedings of the IEEE}, volume={86}, number={11}, pages={2278--2324}, year={1998}}",
)
DIGITS = Reference(
    "E. Alpaydin and C. Kaynak, Optical recognition of handwritten digits, UCI repository 1998 "
    "(scikit-learn's digits)",
    "@misc{alpaydin1998optical, title={Optical recognition of handwritten digits}, "
    "author={Alpaydin, Ethem and Kaynak, Cenk}, howpublished={UCI Machine Learning Repository}, year={1998}}",
)
NOWOZIN = Reference(
    "S. Nowozin, B. Cseke and R. Tomioka, f-GAN: training generative neural samplers using variational "
    "divergence minimization, NeurIPS 2016",
    "@inproceedings{nowozin2016fgan, title={f-{GAN}: Training generative neural samplers using variational "
    "divergence minimization}, author={Nowozin, Sebastian and Cseke, Botond and Tomioka, Ryota}, "
    "booktitle={NeurIPS}, year={2016}}",
)
MESCHEDER2018 = Reference(
    "L. Mescheder, A. Geiger and S. Nowozin, Which training methods for GANs do actually converge?, "
    "ICML 2018",
    "@inproceedings{mescheder2018which, title={Which training methods for {GANs} do actually converge?}, "
    "author={Mescheder, Lars and Geiger, Andreas and Nowozin, Sebastian}, booktitle={ICML}, year={2018}}",
)
PROJECTION = Reference(
    "T. Miyato and M. Koyama, cGANs with projection discriminator, ICLR 2018",
    "@inproceedings{miyato2018cgans, title={{cGANs} with projection discriminator}, "
    "author={Miyato, Takeru and Koyama, Masanori}, booktitle={ICLR}, year={2018}}",
)
HUANG = Reference(
    "Y. Huang, A. Gokaslan, V. Kuleshov and J. Tompkin, The GAN is dead; long live the GAN! A modern "
    "GAN baseline, NeurIPS 2024",
    "@inproceedings{huang2024gan, title={The {GAN} is dead; long live the {GAN}! A modern {GAN} baseline}, "
    "author={Huang, Yiwen and Gokaslan, Aaron and Kuleshov, Volodymyr and Tompkin, James}, "
    "booktitle={NeurIPS}, year={2024}}",
)
KRIZHEVSKY = Reference(
    "A. Krizhevsky, Learning multiple layers of features from tiny images, technical report 2009 (CIFAR-10)",
    "@techreport{krizhevsky2009learning, title={Learning multiple layers of features from tiny images}, "
    "author={Krizhevsky, Alex}, institution={University of Toronto}, year={2009}}",
)
HSIEH = Reference(
    "Y.-P. Hsieh, C. Liu and V. Cevher, Finding mixed Nash equilibria of generative adversarial networks, "
    "ICML 2019",
    "@inproceedings{hsieh2019finding, title={Finding mixed {Nash} equilibria of generative adversarial "
    "networks}, author={Hsieh, Ya-Ping and Liu, Chen and Cevher, Volkan}, booktitle={ICML}, year={2019}}",
)
WELLING = Reference(
    "M. Welling and Y. W. Teh, Bayesian learning via stochastic gradient Langevin dynamics, ICML 2011",
    "@inproceedings{welling2011bayesian, title={Bayesian learning via stochastic gradient {Langevin} dynamics}, "
    "author={Welling, Max and Teh, Yee Whye}, booktitle={ICML}, year={2011}}",
)
